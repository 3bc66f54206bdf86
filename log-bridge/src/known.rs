//! The callsites that one source has numbered.

use crate::callsites::{Callsites, Interned};
use crate::site::SiteRef;
use crate::wire::{Flaw, MAX_SITES_BYTES};

/// What the numbers of one source stand for.
#[derive(Debug, Default)]
pub(crate) struct KnownSites {
    events: Table,
    spans: Table,
}

#[derive(Debug, Default)]
struct Table {
    sites: Vec<Option<Known>>,
    bytes: usize,
}

#[derive(Debug)]
struct Known {
    blob: Box<[u8]>,
    interned: Option<&'static Interned>,
}

/// A callsite and, unless there were too many, its place in this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resolved<'a> {
    pub(crate) blob: &'a [u8],
    pub(crate) interned: Option<&'static Interned>,
}

type Intern = fn(&Callsites, &[u8]) -> Result<Option<&'static Interned>, Flaw>;

impl KnownSites {
    /// The callsite of an event; a definition is learned by it.
    #[inline]
    pub(crate) fn event<'a>(&'a mut self, site: SiteRef<'a>) -> Result<Resolved<'a>, Flaw> {
        self.events.resolve(site, Callsites::event)
    }

    /// The callsite of a span; a definition is learned by it.
    #[inline]
    pub(crate) fn span<'a>(&'a mut self, site: SiteRef<'a>) -> Result<Resolved<'a>, Flaw> {
        self.spans.resolve(site, Callsites::span)
    }

    /// The metadata of an event that was resolved before.
    pub(crate) fn blob_of_event<'a>(&'a self, site: SiteRef<'a>) -> Option<&'a [u8]> {
        self.events.blob(site)
    }

    /// The metadata of a span that was resolved before.
    pub(crate) fn blob_of_span<'a>(&'a self, site: SiteRef<'a>) -> Option<&'a [u8]> {
        self.spans.blob(site)
    }
}

impl Table {
    #[inline]
    fn resolve<'a>(&'a mut self, site: SiteRef<'a>, intern: Intern) -> Result<Resolved<'a>, Flaw> {
        let number = match site {
            SiteRef::Known(number) => number,
            SiteRef::Defines(number, blob) => {
                self.define(number, blob, intern)?;
                number
            }
            SiteRef::Inline(blob) => {
                let interned = intern(Callsites::global(), blob)?;
                return Ok(Resolved { blob, interned });
            }
        };
        let known = self.sites.get(usize::from(number)).and_then(Option::as_ref);
        let Known { blob, interned } = known.ok_or(Flaw::SiteUnknown(number))?;
        Ok(Resolved {
            blob,
            interned: *interned,
        })
    }

    fn define(&mut self, number: u16, blob: &[u8], intern: Intern) -> Result<(), Flaw> {
        let index = usize::from(number);
        // Numbers were checked to be below MAX_SITES.
        if self.sites.len() <= index {
            self.sites.resize_with(index + 1, || None);
        }
        match &self.sites[index] {
            // Two threads may define it at the same time, and a record that waited does so late.
            Some(known) if *known.blob == *blob => Ok(()),
            Some(_) => Err(Flaw::SiteRedefined(number)),
            None => {
                self.bytes += blob.len();
                if self.bytes > MAX_SITES_BYTES {
                    return Err(Flaw::SitesTooLarge);
                }
                let interned = intern(Callsites::global(), blob)?;
                self.sites[index] = Some(Known {
                    blob: blob.into(),
                    interned,
                });
                Ok(())
            }
        }
    }

    fn blob<'a>(&'a self, site: SiteRef<'a>) -> Option<&'a [u8]> {
        match site {
            SiteRef::Inline(blob) | SiteRef::Defines(_, blob) => Some(blob),
            SiteRef::Known(number) => {
                let known = self.sites.get(usize::from(number))?;
                known.as_ref().map(|known| &*known.blob)
            }
        }
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
        let mut known = KnownSites::default();
        let unknown = known.event(SiteRef::Known(5)).unwrap_err();
        assert_eq!(unknown, Flaw::SiteUnknown(5));
        assert_eq!(*known.event(SiteRef::Defines(5, &one)).unwrap().blob, *one);
        assert_eq!(*known.event(SiteRef::Known(5)).unwrap().blob, *one);
        assert!(known.event(SiteRef::Defines(5, &one)).is_ok(), "the same again");
        let lie = known.event(SiteRef::Defines(5, &other)).unwrap_err();
        assert_eq!(lie, Flaw::SiteRedefined(5));
        assert!(
            known.span(SiteRef::Known(5)).is_err(),
            "spans have their own numbers"
        );
        assert_eq!(known.blob_of_event(SiteRef::Known(5)), Some(&*one));
        assert!(known.event(SiteRef::Defines(6, b"nonsense")).is_err());
    }
}
