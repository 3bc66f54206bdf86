//! Handles as text: what both types of handles share.

/// Splits the text of a handle that starts with `prefix` and a colon into its length and the rest.
pub(crate) fn split<'t>(text: &'t str, prefix: &str) -> Result<(usize, &'t str), &'static str> {
    let rest = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(':'));
    let rest = rest.ok_or("it starts with something else")?;
    let (len, rest) = rest.split_once(':').ok_or("it has too few fields")?;
    let len = crate::os::number(len)?.try_into();
    Ok((len.map_err(|_| "its length is out of range")?, rest))
}

/// Implements the traits of serde for a type by its `Display` and `FromStr`, whose error is an [`Error`](std::error::Error). The
/// calling crate depends on `serde_core`.
#[doc(hidden)]
#[macro_export]
macro_rules! serde_as_text {
    ($type:ty, $expected:literal) => {
        impl ::serde_core::Serialize for $type {
            fn serialize<S: ::serde_core::Serializer>(
                &self,
                to: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> ::serde_core::Deserialize<'de> for $type {
            fn deserialize<D: ::serde_core::Deserializer<'de>>(
                from: D,
            ) -> ::std::result::Result<Self, D::Error> {
                struct Text;

                impl ::serde_core::de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: ::serde_core::de::Error>(
                        self,
                        text: &str,
                    ) -> ::std::result::Result<Self::Value, E> {
                        text.parse()
                            .map_err(|error| E::custom(format_args!("{:#}", $crate::WithCauses(&error))))
                    }
                }

                from.deserialize_str(Text)
            }
        }
    };
}
