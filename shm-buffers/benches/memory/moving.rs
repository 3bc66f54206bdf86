//! The leader's peak memory during `share_move`, in a process of its own.

use std::io::BufRead;

use shm_buffers::{Backing, ByteSize, share_move};

use crate::child::{LineChild, kib};
use crate::model::Model;
use crate::report::{Report, Target};
use crate::{Failure, Size};

pub(crate) fn measure(size: Size, report: &mut Report) -> Result<(), Failure> {
    for arrays in [8, 1] {
        let mut child = LineChild::spawn(&format!("move {} {arrays}", size.bytes))?;
        let before = child.ask("build")?;
        let peak = child.ask("move")?;
        child.end()?;
        let name = match arrays {
            1 => "share_move, one array: peak RSS".to_owned(),
            n => format!("share_move, {n} arrays: peak RSS"),
        };
        // The peak includes the process's other memory, so the target only applies to models that are much larger.
        let limit = match size.bytes < 128 << 20 {
            true => Target::None,
            false => Target::AtMost(1.05),
        };
        report.row(
            &name,
            ByteSize(peak),
            ("model", ByteSize(size.bytes as u64)),
            peak as f64 / size.bytes as f64,
            limit,
        );
        if before > peak {
            return Err("the peak fell".into());
        }
    }
    Ok(())
}

/// Runs the child: answers with its peak RSS after building the model, then after moving it.
pub(crate) fn serve(bytes: usize, arrays: usize) -> Result<(), Failure> {
    let mut lines = std::io::stdin().lock().lines();
    lines.next().ok_or("no line")??;
    let model = Model::on_heap(bytes, arrays);
    println!("{}", kib("/proc/self/status", "VmHWM:")?);
    lines.next().ok_or("no line")??;
    let image = share_move(model, &Backing::Auto)?;
    println!("{}", kib("/proc/self/status", "VmHWM:")?);
    let moved: Model = image.load()?;
    let last = moved.arrays.last().and_then(|array| array.last());
    let len = bytes / arrays / size_of::<f32>();
    match last == Some(&((len + arrays - 2) as f32)) {
        true => Ok(()),
        false => Err(format!("the moved model ends with {last:?}").into()),
    }
}
