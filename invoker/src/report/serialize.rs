//! How fields of a report are serialized: times as seconds, enums of other crates as their lowercase names.

/// Times as numbers of seconds.
pub(super) mod seconds {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// `finish`, `cancel` or `kill`, if interrupted.
pub(super) mod interrupt {
    use proc_pool::Interrupt;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    const NAMES: [(Interrupt, &str); 3] = [
        (Interrupt::Finish, "finish"),
        (Interrupt::Cancel, "cancel"),
        (Interrupt::Kill, "kill"),
    ];

    pub(crate) fn name(interrupt: Interrupt) -> &'static str {
        let found = NAMES.iter().find(|(known, _)| *known == interrupt);
        found.map_or("unknown", |(_, name)| name)
    }

    pub(crate) fn serialize<S: Serializer>(interrupt: &Option<Interrupt>, to: S) -> Result<S::Ok, S::Error> {
        interrupt.map(name).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Interrupt>, D::Error> {
        let interrupt = |name: String| {
            let found = NAMES.iter().find(|(_, known)| *known == name);
            found
                .map(|(interrupt, _)| *interrupt)
                .ok_or_else(|| D::Error::custom(format!("no interruption is called `{name}`")))
        };
        Option::<String>::deserialize(from)?.map(interrupt).transpose()
    }
}

/// `anonymous`, `named` or `file`.
pub(super) mod backing {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use shm_buffers::BackingKind;

    const KINDS: [BackingKind; 3] = [BackingKind::Anonymous, BackingKind::Named, BackingKind::File];

    pub(crate) fn serialize<S: Serializer>(kind: &BackingKind, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(kind)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BackingKind, D::Error> {
        let name = String::deserialize(from)?;
        let found = KINDS.into_iter().find(|kind| kind.to_string() == name);
        found.ok_or_else(|| D::Error::custom(format!("no backing is called `{name}`")))
    }
}
