//! `share` compared with Python: pickle protocol 5, with the buffers copied into shared memory.

use std::process::Command;

use shm_buffers::{Backing, share};

use crate::model::{Model, best, timed};
use crate::report::{Ratio, Report, Target, speed};
use crate::{Failure, Size};

const SCRIPT: &str = r#"
import pickle, sys, time
from multiprocessing.shared_memory import SharedMemory
total, rounds = int(sys.argv[1]), int(sys.argv[2])
arrays = [bytearray(b"\x01") * (total // 8) for _ in range(8)]
times = []
for _ in range(rounds):
    start = time.perf_counter()
    buffers = []
    skeleton = pickle.dumps([pickle.PickleBuffer(a) for a in arrays], 5, buffer_callback=buffers.append)
    shared = SharedMemory(create=True, size=total + len(skeleton))
    at = 0
    for buffer in buffers:
        raw = buffer.raw()
        shared.buf[at:at + raw.nbytes] = raw
        at += raw.nbytes
    shared.buf[at:at + len(skeleton)] = skeleton
    times.append(time.perf_counter() - start)
    shared.close()
    shared.unlink()
print(min(times))
"#;

pub(crate) fn measure(size: Size, report: &mut Report) -> Result<(), Failure> {
    let name = "share, against Python's pickle 5";
    let ran = Command::new("python3")
        .args(["-c", SCRIPT])
        .args([size.bytes.to_string(), size.rounds.to_string()])
        .output();
    let output = match ran {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            report.skipped(name, errors.lines().last().unwrap_or("python3 failed"));
            return Ok(());
        }
        Err(error) => {
            report.skipped(name, format_args!("no python3: {error}"));
            return Ok(());
        }
    };
    let floor: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    let model = Model::on_heap(size.bytes, 8);
    let mut times = Vec::new();
    for _ in 0..size.rounds {
        let (time, image) = timed(|| share(&model, &Backing::Auto));
        drop(image?);
        times.push(time);
    }
    let time = best(times.iter().copied());
    report.row(
        name,
        speed(size.bytes, time),
        ("pickle", speed(size.bytes, floor)),
        Ratio::of_best(&[floor], &times),
        Target::None,
    );
    Ok(())
}
