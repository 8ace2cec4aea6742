//! Keys of rows. All that an inventory needs stands in them, so that a list is enough to know what is there:
//! `rows/<extent>/<row>.<kind>.<order>.<instance>`.

use std::str::FromStr;

use diptych_core::ids::{ExtentId, InstanceId, Row};
use diptych_core::records::ExtentKind;

use crate::types::InventoryKey;

/// Where all rows are.
pub(crate) const ROWS: &str = "rows/";

/// The name of a row's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowName {
    pub(crate) key: InventoryKey,
    pub(crate) kind: ExtentKind,
    /// Of two records of one row the one written later has the greater: number of the opening, then of the write in it.
    pub(crate) order: u64,
}

impl RowName {
    /// The object's key.
    pub(crate) fn object(&self) -> String {
        let Self { key: InventoryKey { extent, row, instance }, kind, order } = self;
        format!("{}{:02}.{}.{order:016x}.{instance}", of_extent(*extent), row.0, word(*kind))
    }

    /// `None`: nothing that a device has written.
    pub(crate) fn parse(object: &str) -> Option<Self> {
        let (extent, rest) = object.strip_prefix(ROWS)?.split_once('/')?;
        let mut parts = rest.split('.');
        let (row, kind, order, instance) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let key = InventoryKey {
            extent: ExtentId::from_str(extent).ok()?,
            row: Row(row.parse().ok()?),
            instance: InstanceId::from_str(instance).ok()?,
        };
        let kind = KINDS.into_iter().find(|known| word(*known) == kind)?;
        let name = Self { key, kind, order: u64::from_str_radix(order, 16).ok()? };
        // One row has one name.
        (name.object() == object).then_some(name)
    }
}

/// Where the rows of an extent are.
pub(crate) fn of_extent(extent: ExtentId) -> String {
    format!("{ROWS}{extent}/")
}

const KINDS: [ExtentKind; 3] = [ExtentKind::Data, ExtentKind::Journal, ExtentKind::Checkpoint];

const fn word(kind: ExtentKind) -> &'static str {
    match kind {
        ExtentKind::Data => "data",
        ExtentKind::Journal => "journal",
        ExtentKind::Checkpoint => "checkpoint",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_and_nothing_else_is_taken_for_one() {
        let key = InventoryKey { extent: ExtentId([0xab; 16]), row: Row(7), instance: InstanceId([1; 8]) };
        for kind in KINDS {
            let name = RowName { key, kind, order: 1 << 32 | 5 };
            assert_eq!(RowName::parse(&name.object()), Some(name));
        }
        let object = RowName { key, kind: ExtentKind::Data, order: 5 }.object();
        assert_eq!(object, "rows/abababababababababababababababab/07.data.0000000000000005.0101010101010101");
        for other in
            [format!("{object}.bak"), object.replace("07", "7"), object.to_uppercase(), "rows/".into()]
        {
            assert_eq!(RowName::parse(&other), None, "{other}");
        }
    }
}
