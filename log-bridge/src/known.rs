//! The callsites that one source has numbered: their metadata as it came, and what they are in this process.

use std::sync::{Arc, Mutex, PoisonError};

use crate::callsites::{Callsites, Interned};
use crate::intake::Intake;
use crate::site::{Site, SiteRef};
use crate::wire::{Flaw, MAX_SITES_BYTES, Record};

/// The encoded metadata behind the numbers of one source. Nothing here calls the code of others.
#[derive(Debug, Default)]
pub(crate) struct KnownSites {
    events: Blobs,
    spans: Blobs,
}

#[derive(Debug, Default)]
struct Blobs {
    sites: Vec<Option<Arc<[u8]>>>,
    bytes: usize,
}

impl KnownSites {
    /// Learns what a record defines.
    pub(crate) fn learn(&mut self, record: &Record<'_>) -> Result<(), Flaw> {
        self.events.learn(record.site)?;
        record.each_span(|_, span| self.spans.learn(span.site))
    }

    /// The metadata of an event.
    pub(crate) fn event<'a>(&'a self, site: SiteRef<'a>) -> Option<&'a [u8]> {
        self.events.blob(site)
    }

    /// The metadata of a span.
    pub(crate) fn span<'a>(&'a self, site: SiteRef<'a>) -> Option<&'a [u8]> {
        self.spans.blob(site)
    }
}

impl Blobs {
    #[inline]
    fn learn(&mut self, site: SiteRef<'_>) -> Result<(), Flaw> {
        match site {
            SiteRef::Inline(_) => Ok(()),
            SiteRef::Known(number) => match self.sites.get(usize::from(number)) {
                Some(Some(_)) => Ok(()),
                _ => Err(Flaw::SiteUnknown(number)),
            },
            SiteRef::Defines(number, blob) => self.define(number, blob),
        }
    }

    fn define(&mut self, number: u16, blob: &[u8]) -> Result<(), Flaw> {
        let index = usize::from(number);
        // Numbers were checked to be below MAX_SITES.
        if self.sites.len() <= index {
            self.sites.resize_with(index + 1, || None);
        }
        match &self.sites[index] {
            // Two threads may define it at the same time, and a record that waited does so late.
            Some(known) if **known == *blob => Ok(()),
            Some(_) => Err(Flaw::SiteRedefined(number)),
            None => {
                Site::decode(blob)?;
                self.bytes += blob.len();
                if self.bytes > MAX_SITES_BYTES {
                    return Err(Flaw::SitesTooLarge);
                }
                self.sites[index] = Some(blob.into());
                Ok(())
            }
        }
    }

    fn numbered(&self, number: u16) -> Option<&Arc<[u8]>> {
        self.sites.get(usize::from(number))?.as_ref()
    }

    fn blob<'a>(&'a self, site: SiteRef<'a>) -> Option<&'a [u8]> {
        match site {
            SiteRef::Inline(blob) | SiteRef::Defines(_, blob) => Some(blob),
            SiteRef::Known(number) => self.numbered(number).map(|blob| &**blob),
        }
    }
}

/// The callsites of one source in this process. Finding one may ask subscribers.
#[derive(Debug)]
pub(crate) struct LiveSites {
    intake: Arc<Mutex<Intake>>,
    events: Vec<Option<Live>>,
    spans: Vec<Option<Live>>,
}

#[derive(Debug)]
struct Live {
    blob: Arc<[u8]>,
    interned: Option<&'static Interned>,
}

/// A callsite and, unless there were too many, its place in this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolved<'a> {
    pub(crate) blob: &'a [u8],
    pub(crate) interned: Option<&'static Interned>,
}

impl LiveSites {
    pub(crate) fn new(intake: Arc<Mutex<Intake>>) -> Self {
        Self {
            intake,
            events: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// The level of an event, as an index; nothing is asked for it.
    #[inline]
    pub(crate) fn level_of_event(&self, site: SiteRef<'_>) -> Result<usize, Flaw> {
        let level = |blob: &[u8]| blob.first().copied().map(usize::from);
        let level = match site {
            SiteRef::Inline(blob) | SiteRef::Defines(_, blob) => level(blob),
            SiteRef::Known(number) => match self.events.get(usize::from(number)) {
                Some(Some(live)) => level(&live.blob),
                _ => blob_of(&self.intake, number, |sites| &sites.events).and_then(|blob| level(&blob)),
            },
        };
        level.ok_or(Flaw::Ends { wanted: 1, left: 0 })
    }

    /// The callsite of an event that the intake has learned.
    #[inline]
    pub(crate) fn event<'a>(&'a mut self, site: SiteRef<'a>) -> Result<Resolved<'a>, Flaw> {
        let find = |number| blob_of(&self.intake, number, |sites| &sites.events);
        resolve(&mut self.events, site, find, Callsites::event)
    }

    /// The callsite of a span that the intake has learned.
    #[inline]
    pub(crate) fn span<'a>(&'a mut self, site: SiteRef<'a>) -> Result<Resolved<'a>, Flaw> {
        let find = |number| blob_of(&self.intake, number, |sites| &sites.spans);
        resolve(&mut self.spans, site, find, Callsites::span)
    }
}

fn blob_of(
    intake: &Mutex<Intake>,
    number: u16,
    table: impl FnOnce(&KnownSites) -> &Blobs,
) -> Option<Arc<[u8]>> {
    let intake = intake.lock().unwrap_or_else(PoisonError::into_inner);
    table(intake.sites()).numbered(number).cloned()
}

type Intern = fn(&Callsites, &[u8]) -> Result<Option<&'static Interned>, Flaw>;

#[inline]
fn resolve<'a>(
    table: &'a mut Vec<Option<Live>>,
    site: SiteRef<'a>,
    find: impl FnOnce(u16) -> Option<Arc<[u8]>>,
    intern: Intern,
) -> Result<Resolved<'a>, Flaw> {
    let number = match site {
        SiteRef::Known(number) | SiteRef::Defines(number, _) => number,
        SiteRef::Inline(blob) => {
            let interned = intern(Callsites::global(), blob)?;
            return Ok(Resolved { blob, interned });
        }
    };
    let index = usize::from(number);
    if !matches!(table.get(index), Some(Some(_))) {
        let blob = find(number).ok_or(Flaw::SiteUnknown(number))?;
        let interned = intern(Callsites::global(), &blob)?;
        if table.len() <= index {
            table.resize_with(index + 1, || None);
        }
        table[index] = Some(Live { blob, interned });
    }
    match &table[index] {
        Some(Live { blob, interned }) => Ok(Resolved {
            blob,
            interned: *interned,
        }),
        None => Err(Flaw::SiteUnknown(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callsites::stand_in;
    use crate::site::blob_of;

    #[test]
    fn numbers_mean_what_they_were_defined_as() {
        let (one, other) = (
            blob_of(stand_in(1).metadata()).unwrap(),
            blob_of(stand_in(2).metadata()).unwrap(),
        );
        let mut known = Blobs::default();
        assert_eq!(known.learn(SiteRef::Known(5)), Err(Flaw::SiteUnknown(5)));
        assert_eq!(known.learn(SiteRef::Defines(5, &one)), Ok(()));
        assert_eq!(known.learn(SiteRef::Known(5)), Ok(()));
        assert_eq!(known.learn(SiteRef::Defines(5, &one)), Ok(()), "the same again");
        let lie = known.learn(SiteRef::Defines(5, &other));
        assert_eq!(lie, Err(Flaw::SiteRedefined(5)));
        assert_eq!(known.blob(SiteRef::Known(5)), Some(&*one));
        assert!(known.learn(SiteRef::Defines(6, b"nonsense")).is_err());
    }
}
