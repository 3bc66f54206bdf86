//! A model whose buffers are mapped or attached is handed on without a copy: leader and worker map the same file.
#![cfg(target_os = "linux")]

use std::error::Error;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, Buffer, BufferMut, Image, SegmentHandle, share};

use crate::{children, mapped};

const LEN: usize = 100_000;

/// The elements of a source, and two parts of them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Model {
    whole: Buffer<f32>,
    part: Buffer<f32>,
    small: Buffer<f32>,
}

impl Model {
    fn of(whole: Buffer<f32>) -> Self {
        Self {
            part: whole.slice(10_000..90_000),
            small: whole.slice(7..10),
            whole,
        }
    }

    fn buffers(&self) -> [&Buffer<f32>; 3] {
        [&self.whole, &self.part, &self.small]
    }
}

fn elements() -> Vec<f32> {
    (0..LEN).map(|i| i as f32).collect()
}

/// Returns device and inode of the file that is mapped at this address, as /proc/PID/maps (proc(5)) has them.
fn file_at(address: usize) -> Result<String, Box<dyn Error>> {
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let mut fields = line.split_whitespace();
        let (start, end) = fields
            .next()
            .and_then(|it| it.split_once('-'))
            .ok_or("no range")?;
        let range = usize::from_str_radix(start, 16)?..usize::from_str_radix(end, 16)?;
        if range.contains(&address) {
            let (device, inode) = (fields.nth(2), fields.next());
            return Ok(format!(
                "{}:{}",
                device.ok_or("no device")?,
                inode.ok_or("no inode")?
            ));
        }
    }
    Err(format!("nothing is mapped at {address:x}").into())
}

fn files(model: &Model) -> Result<Vec<String>, Box<dyn Error>> {
    let buffers = model.buffers().into_iter();
    buffers.map(|it| file_at(it.as_ptr().addr())).collect()
}

/// Returns the total size of this process's anonymous shared memory that has a descriptor.
fn memfd_bytes() -> Result<u64, Box<dyn Error>> {
    let mut files = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        let is_memfd = std::fs::read_link(&path).is_ok_and(|to| to.starts_with("/memfd:shm-buffers"));
        if let (true, Ok(metadata)) = (is_memfd, std::fs::metadata(&path)) {
            files.insert(std::os::unix::fs::MetadataExt::ino(&metadata), metadata.len());
        }
    }
    Ok(files.values().sum())
}

fn write_npy(path: &Path) -> std::io::Result<()> {
    let mut head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({LEN},), }}");
    while !(head.len() + 11).is_multiple_of(64) {
        head.push(' ');
    }
    head.push('\n');
    let len = (head.len() as u16).to_le_bytes();
    let elements = elements();
    let parts: [&[u8]; 4] = [
        b"\x93NUMPY\x01\x00",
        &len,
        head.as_bytes(),
        bytemuck::cast_slice(&elements),
    ];
    std::fs::write(path, parts.concat())
}

/// The name of a source, and a buffer of it.
type Source = (&'static str, Buffer<f32>);

/// Returns a buffer of each kind of memory that other processes can map, with its name.
fn sources(dir: &Path) -> Result<Vec<Source>, Box<dyn Error>> {
    let npy = dir.join("source.npy");
    write_npy(&npy)?;
    let file = dir.join("source.safetensors");
    let heap = Buffer::from(elements());
    share(&heap, &Backing::Auto)?.save(&file)?;
    let opened = mapped::open(&file)?;
    let shared = share(&heap, &Backing::Auto)?;
    let built = BufferMut::from_fn(&Backing::Auto, LEN, |i| i as f32)?.freeze()?;
    let outer = share(&built, &Backing::Auto)?;
    Ok(vec![
        ("open_npy", mapped::open_npy(&npy)?.buffer()?),
        (
            "open_safetensors",
            mapped::open_safetensors(&file)?.buffer("buffer")?,
        ),
        ("an opened image", opened.load()?),
        ("an attached file", Image::attach(&opened.handle()?)?.load()?),
        ("an image", shared.load()?),
        // The owners are dropped: an attached segment leads to its memory on its own.
        ("an attached image", Image::attach(&shared.handle()?)?.load()?),
        (
            "a buffer of an attached image",
            Image::attach(&outer.handle()?)?.load()?,
        ),
        ("a built buffer", built),
    ])
}

#[test]
fn mapped_and_attached_buffers_are_the_same_file_in_every_process() -> Result<(), Box<dyn Error>> {
    if let Some(handle) = children::part() {
        let handle: SegmentHandle = handle.parse()?;
        let model: Model = Image::attach(&handle)?.load()?;
        assert_eq!(model, Model::of(elements().into()));
        println!("files: {}", files(&model)?.join(" "));
        children::report_success();
        return Ok(());
    }
    let this = "handing_on::mapped_and_attached_buffers_are_the_same_file_in_every_process";
    let dir = tempfile::tempdir()?;
    for (source, whole) in sources(dir.path())? {
        let model = Model::of(whole);
        let image = share(&model, &Backing::Auto)?;
        assert!(image.segment().len() < 4096, "{source}: a buffer was copied");
        let ours = files(&model)?;
        let handle = image.handle()?.to_string();
        let (status, output) = children::run(&mut children::again(&[], this, &handle));
        let theirs = output.lines().find_map(|line| line.split_once("files: "));
        assert!(status.success(), "{source}: {output}");
        assert_eq!(theirs.map(|(_, files)| files), Some(&*ours.join(" ")), "{source}");
    }
    Ok(())
}

#[test]
fn sharing_a_mapped_model_again_takes_no_shared_memory() -> Result<(), Box<dyn Error>> {
    let this = "handing_on::sharing_a_mapped_model_again_takes_no_shared_memory";
    if children::part().is_none() {
        // In a process of its own, because other tests create shared memory at the same time.
        children::assert_success(&mut children::again(&[], this, "alone"));
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    for (source, whole) in sources(dir.path())? {
        let model = Model::of(whole);
        let before = memfd_bytes()?;
        let images: Vec<Image> = (0..3)
            .map(|_| share(&model, &Backing::Auto))
            .collect::<Result<_, _>>()?;
        let taken = memfd_bytes()? - before;
        assert!(taken < 3 * 4096, "{source}: {taken} bytes");
        drop(images);
    }
    children::report_success();
    Ok(())
}

/// A process that received the descriptors attaches an image without looking for them in /proc.
#[test]
fn the_descriptors_of_an_image_include_those_of_its_other_segments() -> Result<(), Box<dyn Error>> {
    use std::os::fd::AsFd;
    let one = BufferMut::from_fn(&Backing::Anonymous, LEN, |i| i as f32)?.freeze()?;
    let two = BufferMut::from_fn(&Backing::Anonymous, LEN, |i| 2.0 * i as f32)?.freeze()?;
    let image = share(&(one, two), &Backing::Anonymous)?;
    let (text, descriptors) = shm_buffers::descriptors::collect(|| image.handle().map(|it| it.to_string()));
    assert_eq!(descriptors.len(), 3);
    for fd in descriptors.as_fds() {
        shm_buffers::descriptors::adopt(fd.as_fd().try_clone_to_owned()?)?;
    }
    // Their owner has dropped them, and the descriptors are others'.
    drop(image);
    let attached = Image::attach(&text?.parse()?)?;
    let (one, two): (Buffer<f32>, Buffer<f32>) = attached.load()?;
    assert_eq!((one[10], two[10]), (10.0, 20.0));
    let (_, handed_on) = shm_buffers::descriptors::collect(|| attached.handle().map(|it| it.to_string()));
    assert_eq!(handed_on.len(), 3);
    Ok(())
}

#[test]
fn an_attached_segment_is_handed_on_after_its_owner_dropped_it() -> Result<(), Box<dyn Error>> {
    let first = shm_buffers::SegmentMut::create(&Backing::Anonymous, LEN)?.freeze()?;
    let second = shm_buffers::Segment::attach(&first.handle()?)?;
    drop(first);
    let third = shm_buffers::Segment::attach(&second.handle()?)?;
    assert_eq!(file_at(second.as_ptr().addr())?, file_at(third.as_ptr().addr())?);
    Ok(())
}
