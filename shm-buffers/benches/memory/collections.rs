//! Maps in shared memory: to build, attach and look up, compared with `HashMap`, which each process would have to build, and
//! with `fst`, which can be mapped as well. The maps lie in an image, as in a worker.

use std::collections::HashMap;
use std::hash::Hash;
use std::hint::black_box;

use serde::de::DeserializeOwned;
use shm_buffers::{Backing, Buffer, Image, IntMap, Lists, StringMap, Strings, share};

use crate::model::{best, timed};
use crate::report::{Ratio, Report, Target};
use crate::rows::median;
use crate::{Failure, Size};

/// The number of entries at full size, where a map does not fit into the caches.
const ENTRIES: usize = 500_000;
const FULL: usize = 256 << 20;

pub(crate) fn measure(size: Size, report: &mut Report) -> Result<(), Failure> {
    let entries = if size.bytes < FULL { ENTRIES / 5 } else { ENTRIES };
    strings(size, entries, report)?;
    integers(size, entries, report)?;
    iteration(size, entries, report)?;
    attaching(size, entries, report)
}

fn strings(size: Size, entries: usize, report: &mut Report) -> Result<(), Failure> {
    let mut random = Random(1);
    let keys: Vec<String> = (0..entries).map(|_| random.string()).collect();
    let pairs = || -> Vec<(String, f32)> { keys.iter().cloned().zip((0..).map(|i| i as f32)).collect() };
    let name = "map of strings, build";
    built(size, name, report, pairs, |pairs| {
        StringMap::<Buffer<f32>>::from_iter(pairs)
    });
    let lists = || -> Vec<(String, Vec<u32>)> {
        let lists = (0..entries as u32).map(|i| vec![i; 1 + i as usize % 8]);
        keys.iter().cloned().zip(lists).collect()
    };
    let name = "map of strings to lists, build";
    built(size, name, report, lists, |pairs| {
        StringMap::<Lists<u32>>::from_iter(pairs)
    });

    let std: HashMap<String, f32> = pairs().into_iter().collect();
    let map: StringMap<Buffer<f32>> = in_image(&StringMap::<Buffer<f32>>::from_iter(pairs()))?;
    let mut sorted: Vec<(&String, u64)> = keys.iter().zip(0..).collect();
    sorted.sort_unstable();
    sorted.dedup_by_key(|(key, _)| *key);
    let fst = fst::Map::from_iter(sorted)?;
    let absent: Vec<String> = (0..entries).map(|_| random.string() + "-").collect();
    for (name, mut queries) in [("map of strings, hit", keys), ("map of strings, miss", absent)] {
        random.shuffle(&mut queries);
        let ours = |key: &String| map.get(key).map_or(0.0, |value| *value);
        let peer = |key: &String| std.get(key).map_or(0.0, |value| *value);
        let fst = |key: &String| fst.get(key).map_or(0.0, |value| value as f32);
        let [ours, peer, fst] = lookups(size, &queries, [&ours, &peer, &fst]);
        row(
            report,
            name,
            "HashMap",
            (ours.clone(), peer),
            entries,
            Target::AtMost(1.5),
        );
        row(report, name, "fst", (ours, fst), entries, Target::None);
    }
    Ok(())
}

fn integers(size: Size, entries: usize, report: &mut Report) -> Result<(), Failure> {
    let mut random = Random(2);
    let keys: Vec<u64> = (0..entries).map(|_| random.next()).collect();
    let pairs = || -> Vec<(u64, f32)> { keys.iter().copied().zip((0..).map(|i| i as f32)).collect() };
    built(size, "map of u64, build", report, pairs, |pairs| {
        IntMap::<u64, Buffer<f32>>::from_iter(pairs)
    });
    let std: HashMap<u64, f32> = pairs().into_iter().collect();
    let map: IntMap<u64, Buffer<f32>> = in_image(&IntMap::<u64, Buffer<f32>>::from_iter(pairs()))?;
    let absent: Vec<u64> = (0..entries).map(|_| random.next()).collect();
    for (name, mut queries) in [("map of u64, hit", keys), ("map of u64, miss", absent)] {
        random.shuffle(&mut queries);
        let ours = |key: &u64| map.get(key).map_or(0.0, |value| *value);
        let peer = |key: &u64| std.get(key).map_or(0.0, |value| *value);
        let [ours, peer] = lookups(size, &queries, [&ours, &peer]);
        row(
            report,
            name,
            "HashMap",
            (ours, peer),
            entries,
            Target::AtMost(1.5),
        );
    }
    Ok(())
}

/// Measures the check of each string for UTF-8.
fn iteration(size: Size, entries: usize, report: &mut Report) -> Result<(), Failure> {
    let mut random = Random(3);
    let std: Vec<String> = (0..entries).map(|_| random.string()).collect();
    let strings: Strings = in_image(&Strings::from(&*std))?;
    let [mut ours, mut peers] = [const { Vec::new() }; 2];
    for _ in 0..size.rounds * 3 {
        ours.push(timed(|| black_box(strings.iter().map(last).sum::<usize>())).0);
        peers.push(timed(|| black_box(std.iter().map(|it| last(it)).sum::<usize>())).0);
    }
    row(
        report,
        "strings, iterate",
        "Vec<String>",
        (ours, peers),
        entries,
        Target::None,
    );
    Ok(())
}

/// Returns the last byte, so that the string is read.
fn last(string: &str) -> usize {
    string.as_bytes().last().map_or(0, |byte| usize::from(*byte))
}

/// Measures attaching, which must not depend on the number of entries.
fn attaching(size: Size, entries: usize, report: &mut Report) -> Result<(), Failure> {
    let image = |entries: usize| -> Result<Image, Failure> {
        let mut random = Random(4);
        let pairs = (0..entries as u32).map(|i| (random.string(), vec![i; 1 + i as usize % 8]));
        Ok(share(&pairs.collect::<StringMap<Lists<u32>>>(), &Backing::Auto)?)
    };
    let (small, large) = (image(entries / 10)?, image(entries)?);
    let attach = |image: &Image| -> Result<f64, Failure> {
        let handle = image.handle()?;
        let (time, map) = timed(|| Image::attach(&handle)?.load::<StringMap<Lists<u32>>>());
        black_box(map?);
        Ok(time)
    };
    let (mut smalls, mut larges) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds * 100 {
        smalls.push(attach(&small)?);
        larges.push(attach(&large)?);
    }
    let (floor, time) = (median(smalls), median(larges));
    report.row(
        &format!("map of {entries} lists, attach"),
        format!("{:.1} us", time * 1e6),
        ("a tenth", format!("{:.1} us", floor * 1e6)),
        time / floor,
        Target::AtMost(2.0),
    );
    Ok(())
}

/// Measures building a map from pairs, as compared with a `HashMap` of them.
fn built<K: Hash + Eq, V, M>(
    size: Size,
    name: &str,
    report: &mut Report,
    pairs: impl Fn() -> Vec<(K, V)>,
    build: impl Fn(Vec<(K, V)>) -> M,
) {
    let [mut ours, mut peers] = [const { Vec::new() }; 2];
    let mut entries = 0;
    for _ in 0..size.rounds {
        let given = pairs();
        entries = given.len();
        ours.push(timed(|| build(given)).0);
        let given = pairs();
        peers.push(timed(|| given.into_iter().collect::<HashMap<_, _>>()).0);
    }
    row(
        report,
        name,
        "HashMap",
        (ours, peers),
        entries,
        Target::AtMost(2.0),
    );
}

/// Returns the value as another process has it.
fn in_image<C: serde::Serialize + DeserializeOwned>(value: &C) -> Result<C, Failure> {
    Ok(share(value, &Backing::Auto)?.load()?)
}

/// Returns the seconds that each of several maps takes for all queries, in alternating rounds.
fn lookups<Q, const N: usize>(size: Size, queries: &[Q], maps: [&dyn Fn(&Q) -> f32; N]) -> [Vec<f64>; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..size.rounds * 2 {
        for (map, times) in maps.iter().zip(&mut times) {
            let work = || black_box(queries.iter().map(map).sum::<f32>());
            times.push(timed(work).0);
        }
    }
    times
}

fn row(
    report: &mut Report,
    name: &str,
    peer: &str,
    (ours, peers): (Vec<f64>, Vec<f64>),
    entries: usize,
    target: Target,
) {
    let ratio = Ratio::of_best(&ours, &peers);
    let each = |times: Vec<f64>| format!("{:.1} ns", best(times) / entries as f64 * 1e9);
    report.row(name, each(ours), (peer, each(peers)), ratio, target);
}

/// A deterministic generator (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns a string of 5 to 20 letters.
    fn string(&mut self) -> String {
        let len = 5 + self.next() % 16;
        (0..len)
            .map(|_| char::from(b'a' + (self.next() >> 32) as u8 % 26))
            .collect()
    }

    fn shuffle<T>(&mut self, elements: &mut [T]) {
        for end in (1..elements.len()).rev() {
            elements.swap(end, self.next() as usize % (end + 1));
        }
    }
}
