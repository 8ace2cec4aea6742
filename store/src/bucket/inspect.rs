//! Reads a device's bucket without opening the device: while an agent holds it, and without one. Changes nothing, trusts no list.

use diptych_core::ids::{ExtentId, InstanceId, Row};

use super::name::{self, RowName};
use super::read::{Fetched, OpenObject};
use super::{Bucket, BucketError, BucketPlace};
use crate::error::StoreError;
use crate::read::describe;
use crate::scan::RecordFault;
use crate::types::RowDescription;

/// A row's object, with every checksum computed anew.
#[derive(Debug)]
pub struct InspectedObject {
    /// Its key, behind the device's prefix.
    pub key: String,
    /// The row, or what is wrong with it.
    pub row: Result<(RowDescription, Vec<u8>), String>,
}

/// One record of a row; `None`: there is no such object.
///
/// Errors: [`StoreError::Io`].
pub fn row(
    place: &BucketPlace,
    extent: ExtentId,
    row: Row,
    instance: InstanceId,
) -> Result<Option<InspectedObject>, StoreError> {
    let mut found = None;
    let prefix = name::of_extent(extent);
    let mut look = |page: Vec<super::ListedObject>| {
        let mut names =
            page.into_iter().filter_map(|object| Some((RowName::parse(&object.key)?, object.bytes)));
        let same = names.find(|(name, _)| name.key.row == row && name.key.instance == instance);
        found = found.take().or(same);
    };
    place.bucket.list(&prefix, &mut look).map_err(|error| place.error("listing", &prefix, error))?;
    let Some((name, bytes)) = found else { return Ok(None) };
    read(&*place.bucket, &name, bytes).map_err(|error| place.error("reading", &name.object(), error))
}

fn read(bucket: &dyn Bucket, name: &RowName, bytes: u64) -> Result<Option<InspectedObject>, BucketError> {
    let key = name.object();
    let fetched = match bucket.get(&key, bytes) {
        Ok((bytes, _)) => bytes,
        Err(BucketError::Absent) => return Ok(None),
        Err(error) => return Err(error),
    };
    let read = OpenObject::open(Box::new(Fetched(fetched)), name).and_then(|object| {
        let row = object.read(&(0..object.trailer.row_bytes))?;
        Ok((describe(&object.head, Some(&object.trailer), false), row.to_vec()))
    });
    let row = read.map_err(|fault| match fault {
        RecordFault::Rotten(error) => error.to_string(),
        RecordFault::Io(_) => "the object is cut".to_owned(),
    });
    Ok(Some(InspectedObject { key, row }))
}
