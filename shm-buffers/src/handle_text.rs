//! Handles as text: what both types of handles share.

/// Splits the text of a handle that starts with `prefix` and a colon into its length and the rest.
pub(crate) fn split<'t>(text: &'t str, prefix: &str) -> Result<(usize, &'t str), &'static str> {
    let rest = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(':'));
    let rest = rest.ok_or("it starts with something else")?;
    let (len, rest) = rest.split_once(':').ok_or("it has too few fields")?;
    let len = crate::os::number(len)?.try_into();
    Ok((len.map_err(|_| "its length is out of range")?, rest))
}

/// Implements the traits of serde for a type by its `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($handle:ty, $expected:literal) => {
        impl serde_core::Serialize for $handle {
            fn serialize<S: serde_core::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde_core::Deserialize<'de> for $handle {
            fn deserialize<D: serde_core::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;

                impl serde_core::de::Visitor<'_> for Text {
                    type Value = $handle;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: serde_core::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                from.deserialize_str(Text)
            }
        }
    };
}

pub(crate) use serde_as_text;
