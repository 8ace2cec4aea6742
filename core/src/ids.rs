//! Identifiers and other small values that cross an interface: a newtype each, so that none can be taken for another.
//!
//! Random identifiers are made by the caller from its own source of randomness; this crate has none.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Text that is not the hexadecimal form of an identifier.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not {kind}: {expected} hexadecimal digits are needed")]
pub struct ParseIdError {
    kind: &'static str,
    expected: usize,
    text: String,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $bytes;

            /// The bytes, as they stand in keys and records.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl From<[u8; $bytes]> for $name {
            fn from(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError {
                    kind: stringify!($name),
                    expected: 2 * $bytes,
                    text: text.to_owned(),
                })?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; $bytes]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

byte_id!(
    /// One installation of Diptych, both sites together; made by the preferred site.
    ClusterId, 16
);
byte_id!(
    /// The unit that is coded, placed, replicated and repaired.
    ExtentId, 16
);
byte_id!(
    /// The bytes of one request, fresh for each attempt: its chunks' key is derived from it, so it is never used twice.
    BlobId, 16
);
byte_id!(
    /// A version of a key, made before its first byte is written.
    VersionId, 16
);
byte_id!(
    /// A multipart upload.
    UploadId, 16
);
byte_id!(
    /// A bucket, whatever its name.
    BucketId, 8
);
byte_id!(
    /// A session of REST: every token that follows from one beginning.
    FamilyId, 16
);
byte_id!(
    /// One fragment record: a row that is written again is another instance.
    InstanceId, 8
);
byte_id!(
    /// A segment file of a device; salts the checksums of the heads in it.
    SegmentId, 16
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

number!(
    /// Number of the term of an active site; only grows. 0: no term yet.
    Epoch, u64
);
number!(
    /// Number of the process that speaks for a site; grows with each election.
    KeeperNumber, u64
);
number!(
    /// A device of one site, as its operator numbered it.
    DeviceId, u32
);
number!(
    /// Number of a row of a codeword.
    Row, u8
);
number!(
    /// Generation of a placement map, a device or a keyring; only grows.
    Generation, u64
);
number!(
    /// Number of a ring key in the keyring.
    RingKeyNumber, u32
);
number!(
    /// Hybrid logical clock: 48 bits of milliseconds since 1970, 16 bits of counter. `clock` moves it.
    Hlc, u64
);

/// On each command to an agent; agents refuse lower ones. Ordered by epoch, then keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Epoch that the sender knows.
    pub epoch: Epoch,
    /// Number of the sending site's keeper.
    pub keeper: KeeperNumber,
}

impl fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.epoch, self.keeper)
    }
}

/// A name that a person gave: a DNS label (RFC 1123), 1 to 63 of `a-z0-9-`, no dash at either end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a name: 1 to 63 of a-z, 0-9 and '-' are allowed, without '-' at either end")]
pub struct ParseNameError {
    text: String,
}

fn check_label(text: &str) -> Result<(), ParseNameError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fine = (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fine { Ok(()) } else { Err(ParseNameError { text: text.to_owned() }) }
}

/// The name of a failure domain: what the value of a label of Kubernetes may be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is not the name of a failure domain: 1 to 63 letters, digits, '-', '_' and '.' are allowed, with a letter or a digit at both ends"
)]
pub struct ParseDomainError {
    text: String,
}

fn check_domain(text: &str) -> Result<(), ParseDomainError> {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = is_end(text.bytes().next()) && is_end(text.bytes().next_back());
    let fine = text.len() <= 63 && ends && text.bytes().all(allowed);
    if fine { Ok(()) } else { Err(ParseDomainError { text: text.to_owned() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path, $error:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                $check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                $check(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name!(
    /// One of the two datacenters (`east`, `west`), or `outside`.
    SiteName,
    check_label,
    ParseNameError
);
name!(
    /// A node with devices, unique in its site.
    NodeName,
    check_label,
    ParseNameError
);
name!(
    /// Nodes that fall together, as a rack or a zone does; unique in its site.
    DomainName,
    check_domain,
    ParseDomainError
);

impl SiteName {
    /// The set of nodes that are in neither site.
    pub fn outside() -> Self {
        Self("outside".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let id = ExtentId([0xa5; 16]);
        assert_eq!(id.to_string().parse::<ExtentId>(), Ok(id));
    }

    #[test]
    fn a_short_id_says_how_many_digits_are_needed() {
        let error = "a5".parse::<ExtentId>().expect_err("two digits are too few");
        assert_eq!(error.to_string(), r#""a5" is not ExtentId: 32 hexadecimal digits are needed"#);
    }

    #[test]
    fn a_name_with_a_capital_or_a_slash_is_refused() {
        for text in ["East", "a/b", "", "-a", "a-", &"x".repeat(64)] {
            assert!(text.parse::<SiteName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_domain_is_named_as_a_label_of_kubernetes_may_be() {
        for text in ["eu-central-1a", "Rack_7.B", "0"] {
            assert_eq!(text.parse::<DomainName>().map(|name| name.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "-a", "a.", "a b", "a/b", &"x".repeat(64)] {
            assert!(text.parse::<DomainName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn stamps_order_by_epoch_before_keeper() {
        let stamp = |epoch, keeper| Stamp { epoch: Epoch(epoch), keeper: KeeperNumber(keeper) };
        assert!(stamp(2, 1) > stamp(1, 9));
        assert!(stamp(2, 2) > stamp(2, 1));
    }
}
