//! Metadata of callsites on their way: as a blob, and in short as a number.

use tracing_core::Metadata;

use crate::reader::Reader;
use crate::tally::LEVELS;
use crate::wire::{Flaw, MAX_SITE, MAX_SITES, clipped, level_index};

/// Bytes of one string of a callsite at most.
const MAX_NAME: usize = 512;

pub(crate) const SITE_INLINE: u8 = 0;
pub(crate) const SITE_DEFINES: u8 = 1;
pub(crate) const SITE_KNOWN: u8 = 2;

/// How a record names a callsite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SiteRef<'a> {
    /// For this record only.
    Inline(&'a [u8]),
    /// From now on the number stands for it.
    Defines(u16, &'a [u8]),
    /// By its number.
    Known(u16),
}

impl<'a> SiteRef<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, Flaw> {
        let form = reader.u8()?;
        let number = match form {
            SITE_INLINE => 0,
            SITE_DEFINES | SITE_KNOWN => reader.u16()?,
            form => return Err(Flaw::SiteForm(form)),
        };
        if usize::from(number) >= MAX_SITES {
            return Err(Flaw::SiteUnknown(number));
        }
        if form == SITE_KNOWN {
            return Ok(Self::Known(number));
        }
        let len = usize::from(reader.u16()?);
        if len > MAX_SITE {
            return Err(Flaw::SiteTooLarge(len));
        }
        let blob = reader.bytes(len)?;
        Ok(match form {
            SITE_INLINE => Self::Inline(blob),
            _ => Self::Defines(number, blob),
        })
    }

    /// Appends it.
    #[inline]
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Known(number) => {
                let [low, high] = number.to_le_bytes();
                out.extend_from_slice(&[SITE_KNOWN, low, high]);
            }
            Self::Inline(blob) => {
                out.push(SITE_INLINE);
                put_blob(out, blob);
            }
            Self::Defines(number, blob) => {
                out.push(SITE_DEFINES);
                out.extend_from_slice(&number.to_le_bytes());
                put_blob(out, blob);
            }
        }
    }

    /// Bytes that [`put`](Self::put) appends.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Known(_) => 3,
            Self::Inline(blob) => 3 + blob.len(),
            Self::Defines(_, blob) => 5 + blob.len(),
        }
    }
}

fn put_blob(out: &mut Vec<u8>, blob: &[u8]) {
    // Blobs are at most MAX_SITE long.
    out.extend_from_slice(&(blob.len() as u16).to_le_bytes());
    out.extend_from_slice(blob);
}

/// The metadata of a callsite.
#[derive(Debug, PartialEq)]
pub(crate) struct Site<'a> {
    /// 0 is ERROR, 4 is TRACE.
    pub(crate) level: u8,
    pub(crate) name: &'a str,
    pub(crate) target: &'a str,
    pub(crate) module_path: Option<&'a str>,
    pub(crate) file: Option<&'a str>,
    pub(crate) line: Option<u32>,
    pub(crate) fields: Vec<&'a str>,
}

const HAS_MODULE: u8 = 1;
const HAS_FILE: u8 = 2;
const HAS_LINE: u8 = 4;

impl<'a> Site<'a> {
    pub(crate) fn decode(site: &'a [u8]) -> Result<Self, Flaw> {
        if site.len() > MAX_SITE {
            return Err(Flaw::SiteTooLarge(site.len()));
        }
        let mut reader = Reader::new(site);
        let level = reader.u8()?;
        if usize::from(level) >= LEVELS {
            return Err(Flaw::Level(level));
        }
        let has = reader.u8()?;
        let name = reader.text()?;
        let target = reader.text()?;
        let module_path = (has & HAS_MODULE > 0).then(|| reader.text()).transpose()?;
        let file = (has & HAS_FILE > 0).then(|| reader.text()).transpose()?;
        let line = (has & HAS_LINE > 0).then(|| reader.u32()).transpose()?;
        let fields = (0..reader.u16()?)
            .map(|_| reader.text())
            .collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self {
            level,
            name,
            target,
            module_path,
            file,
            line,
            fields,
        })
    }
}

impl Site<'_> {
    /// Only the name.
    pub(crate) fn decode_name(site: &[u8]) -> Result<&str, Flaw> {
        let mut reader = Reader::new(site);
        reader.bytes(2)?;
        reader.text()
    }
}

/// The metadata of a callsite as a blob; `None` if it is larger than any may be.
pub(crate) fn blob_of(metadata: &Metadata<'_>) -> Option<Box<[u8]>> {
    let mut out = Vec::with_capacity(256);
    let put_text = |out: &mut Vec<u8>, text: &str, max: usize| {
        let text = clipped(text, max);
        out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    out.push(level_index(*metadata.level()) as u8);
    out.push(
        flag(metadata.module_path().is_some(), HAS_MODULE)
            | flag(metadata.file().is_some(), HAS_FILE)
            | flag(metadata.line().is_some(), HAS_LINE),
    );
    put_text(&mut out, metadata.name(), MAX_NAME);
    put_text(&mut out, metadata.target(), MAX_NAME);
    for text in [metadata.module_path(), metadata.file()].into_iter().flatten() {
        put_text(&mut out, text, MAX_NAME);
    }
    if let Some(line) = metadata.line() {
        out.extend_from_slice(&line.to_le_bytes());
    }
    out.extend_from_slice(&(metadata.fields().len() as u16).to_le_bytes());
    for field in metadata.fields() {
        put_text(&mut out, field.name(), MAX_SITE);
    }
    (out.len() <= MAX_SITE).then(|| out.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callsites_come_back_and_truncations_do_not() {
        let blob = blob_of(crate::callsites::stand_in(1).metadata()).unwrap();
        let site = Site::decode(&blob).unwrap();
        assert_eq!((site.level, site.target, site.line), (1, "log_bridge", None));
        assert_eq!(site.fields[0], "message");
        assert!((0..blob.len()).all(|len| Site::decode(&blob[..len]).is_err()));
        assert_eq!(
            Site::decode(&[0; MAX_SITE + 1]),
            Err(Flaw::SiteTooLarge(MAX_SITE + 1))
        );
        assert_eq!(Site::decode(&[5, 0]), Err(Flaw::Level(5)));
    }

    #[test]
    fn references_are_bounded() {
        for site in [
            SiteRef::Inline(b"x"),
            SiteRef::Defines(7, b"yz"),
            SiteRef::Known(4095),
        ] {
            let mut out = Vec::new();
            site.put(&mut out);
            assert_eq!(out.len(), site.len());
            assert_eq!(SiteRef::decode(&mut Reader::new(&out)), Ok(site));
            out.pop();
            assert!(SiteRef::decode(&mut Reader::new(&out)).is_err());
        }
        let decode = |bytes: &'static [u8]| SiteRef::decode(&mut Reader::new(bytes));
        assert_eq!(decode(&[SITE_KNOWN, 0, 16]), Err(Flaw::SiteUnknown(4096)));
        assert_eq!(decode(&[3]), Err(Flaw::SiteForm(3)));
        assert_eq!(decode(&[SITE_INLINE, 255, 255]), Err(Flaw::SiteTooLarge(65535)));
    }
}
