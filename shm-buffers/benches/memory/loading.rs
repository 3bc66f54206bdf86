//! `load_shared` of a compressed image: its speed compared with zstd's own decoding of the same frames into memory, and the
//! memory that it takes besides the segment.

use std::io::BufRead;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use shm_buffers::{Backing, ByteSize, Compression, Image, SegmentMut, share_move};
use zstd::zstd_safe;

use crate::child::{LineChild, kib};
use crate::model::{Model, best, timed};
use crate::report::{Ratio, Report, Target, speed};
use crate::{Failure, Size};

pub(crate) fn measure(size: Size, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.zst");
    let image = share_move(Model::on_heap(size.bytes, 8), &Backing::Auto)?;
    let plain = image.segment().len();
    image.save_compressed(&path, Compression::default())?;
    drop(image);
    let compressed = std::fs::read(&path)?;
    let frames = frames(&compressed)?;
    println!(
        "  (image of {} compressed to {} in {} frames)",
        ByteSize(plain as u64),
        ByteSize(compressed.len() as u64),
        frames.len()
    );

    let [mut loads, mut heaps, mut segments] = [const { Vec::new() }; 3];
    for _ in 0..size.rounds {
        let (time, decoded) = timed(|| -> Result<_, Failure> {
            let mut target = vec![0; plain];
            decode(&frames, &mut target)?;
            Ok(target)
        });
        drop(decoded?);
        heaps.push(time);
        let (time, decoded) = timed(|| -> Result<_, Failure> {
            let mut target = SegmentMut::create(&Backing::Anonymous, plain)?;
            decode(&frames, &mut target)?;
            Ok(target)
        });
        drop(decoded?);
        segments.push(time);
        let (time, image) = timed(|| Image::load_shared(&path, &Backing::Anonymous));
        drop(image?);
        loads.push(time);
    }
    let time = best(loads.iter().copied());
    for (floors, name, target) in [
        (heaps, "zstd to heap", Target::AtLeast(0.8)),
        (segments, "zstd to segment", Target::None),
    ] {
        let ratio = Ratio::of_best(&floors, &loads);
        let floor = best(floors);
        report.row(
            "load_shared, compressed",
            speed(plain, time),
            (name, speed(plain, floor)),
            ratio,
            target,
        );
    }

    let mut child = LineChild::spawn(&format!("load {}", path.display()))?;
    let baseline = child.ask("baseline")?;
    let peak = child.ask("load")?;
    child.end()?;
    let beside = peak.saturating_sub(baseline);
    let limit = 64 << 20;
    report.row(
        "load_shared, compressed: peak beside segment",
        ByteSize(beside),
        ("limit", ByteSize(limit)),
        beside as f64 / limit as f64,
        Target::AtMost(1.0),
    );
    Ok(())
}

/// Returns the frames with data, each with the length of its content.
fn frames(compressed: &[u8]) -> Result<Vec<(&[u8], usize)>, Failure> {
    let mut frames = Vec::new();
    let mut rest = compressed;
    while !rest.is_empty() {
        let len = zstd_safe::find_frame_compressed_size(rest).map_err(zstd_safe::get_error_name)?;
        let frame;
        (frame, rest) = rest.split_at(len);
        // The index, which decoders skip, has no content size.
        if let Ok(Some(content)) = zstd_safe::get_frame_content_size(frame)
            && content > 0
        {
            frames.push((frame, usize::try_from(content)?));
        }
    }
    Ok(frames)
}

/// Decodes the frames on all cores: the floor.
fn decode(frames: &[(&[u8], usize)], mut target: &mut [u8]) -> Result<(), Failure> {
    let mut work = Vec::new();
    for (frame, content) in frames {
        let part;
        (part, target) = std::mem::take(&mut target).split_at_mut(*content);
        work.push((frame, part));
    }
    let work = Mutex::new(work.into_iter());
    let run = || -> Result<(), Failure> {
        let mut decompressor = zstd::bulk::Decompressor::new()?;
        loop {
            let next = work.lock().map_err(|e| e.to_string())?.next();
            let Some((frame, part)) = next else { return Ok(()) };
            decompressor.decompress_to_buffer(frame, part)?;
        }
    };
    let threads = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let own = run();
        others.into_iter().fold(own, |all, other| {
            all.and(other.join().map_err(|_| "a thread panicked")?)
        })
    })
}

/// Runs the child: answers with its anonymous memory (heap and stacks, without the segment and mapped files) before loading,
/// then with the peak while loading.
pub(crate) fn serve(path: &Path) -> Result<(), Failure> {
    let anonymous = || kib("/proc/self/status", "RssAnon:");
    let mut lines = std::io::stdin().lock().lines();
    lines.next().ok_or("no line")??;
    println!("{}", anonymous()?);
    lines.next().ok_or("no line")??;
    let loaded = AtomicBool::new(false);
    let (image, peak) = thread::scope(|scope| {
        // Polled without a pause: one read takes about 20 us, decoding a frame takes milliseconds.
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !loaded.load(Ordering::Relaxed) {
                peak = anonymous().map_or(peak, |now| peak.max(now));
            }
            peak
        });
        let image = Image::load_shared(path, &Backing::Auto);
        loaded.store(true, Ordering::Relaxed);
        (image, watch.join())
    });
    println!("{}", peak.map_err(|_| "a thread panicked")?);
    drop(image?);
    Ok(())
}
