//! A struct of one's own, with strings and lists, as columns: `Strings`, `Lists`, `StringMap` and buffers.
//!
//! One copy. Each field becomes a column of its own. The small allocations of the original go back to the system: the leader's private
//! memory is checked, too.

use cookbook::{Copies, Random, check, private_bytes, scaled, workers};
use invoker::{BoxError, Buffer, Invoker, Lists, StringMap, Strings};
use serde::{Deserialize, Serialize};

/// A place as the program that reads the source has it.
struct Place {
    name: String,
    country: String,
    position: [f32; 2],
    neighbours: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct Places {
    names: Strings,
    countries: Strings,
    positions: Buffer<[f32; 2]>,
    neighbours: Lists<u32>,
    by_name: StringMap<Buffer<u32>>,
}

impl From<Vec<Place>> for Places {
    fn from(places: Vec<Place>) -> Self {
        Self {
            names: places.iter().map(|place| &place.name).collect(),
            countries: places.iter().map(|place| &place.country).collect(),
            positions: places.iter().map(|place| place.position).collect(),
            neighbours: places.iter().map(|place| &place.neighbours).collect(),
            by_name: (0..).zip(&places).map(|(id, place)| (&place.name, id)).collect(),
        }
    }
}

/// Returns the names of a place's neighbours that are north of it, with their countries.
fn north(places: &Places, name: String) -> Vec<(String, String)> {
    let Some(id) = places.by_name.get(&name) else {
        return Vec::new();
    };
    let latitude = |id: u32| places.positions[id as usize][0];
    let neighbours = places.neighbours[*id as usize].iter();
    let north = neighbours.filter(|other| latitude(**other) > latitude(*id));
    let owned = |id: &u32| {
        let id = *id as usize;
        (places.names[id].to_owned(), places.countries[id].to_owned())
    };
    north.map(owned).collect()
}

fn places() -> Vec<Place> {
    let mut random = Random::new(19);
    let count = scaled(500_000);
    let place = |id| Place {
        name: format!("{} {id}", random.word(8)),
        country: random.word(2),
        position: [random.below(180) as f32 - 90.0, random.below(360) as f32 - 180.0],
        neighbours: (0..random.below(10)).map(|_| random.below(count)).collect(),
    };
    (0..count).map(place).collect()
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let before = private_bytes(std::process::id());
    let places = places();
    let asked: Vec<String> = places
        .iter()
        .step_by(250)
        .map(|place| place.name.clone())
        .collect();
    let north_of = |place: &Place| {
        let others = place.neighbours.iter().map(|id| &places[*id as usize]);
        let north = others.filter(|other| other.position[0] > place.position[0]);
        north
            .map(|other| (other.name.clone(), other.country.clone()))
            .collect()
    };
    let expected: Vec<Vec<(String, String)>> = places.iter().step_by(250).map(north_of).collect();

    let invoker = Invoker::builder(north)
        .model(Places::from(places))
        .workers(workers())
        .build()?;
    let found: Vec<Vec<(String, String)>> = invoker.map(asked).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    if let (Some(before), Some(after)) = (before, private_bytes(std::process::id())) {
        // The expected outputs, the found ones, and what the allocator keeps between them.
        assert!(
            after < before + (12 << 20),
            "the leader has kept {} bytes",
            after - before
        );
    }
    check("own_struct", Copies::One, invoker)
}
