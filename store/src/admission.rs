//! What can refuse a row before a byte of it is written.

use std::sync::Arc;

use diptych_core::fragment::RecordHead;
use diptych_core::ids::ClusterId;

use crate::error::StoreError;
use crate::index::Index;
use crate::log::Log;
use crate::queue::Queue;
use crate::record::{Folder, KeptRecord};
use crate::room;
use crate::types::{NewRow, Purpose, WholeRow};
use crate::writer::{self, LogWriter};

/// Whose rows a device takes, and how many of them.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) cluster: ClusterId,
    pub(crate) capacity: Option<u64>,
    pub(crate) log: Arc<Log>,
    pub(crate) record: Arc<KeptRecord>,
}

impl Admission {
    /// The head of a row's record with room for so many bytes.
    pub(crate) fn head(
        &self,
        index: &Index,
        row: &NewRow,
        room: u64,
        purpose: Purpose,
    ) -> Result<RecordHead, StoreError> {
        let head = writer::record_head(self.cluster, row, room);
        let limit = self.log.longest_record();
        if head.reserved > limit {
            return Err(StoreError::TooLong { bytes: room, limit });
        }
        head.validate().map_err(|reason| StoreError::BadRow { reason })?;
        let (extent, instance) = (row.extent, row.instance);
        if index.was_killed(instance)? || index.find(extent, row.row, Some(instance))?.is_some() {
            return Err(StoreError::InstanceUsed { extent, instance });
        }
        room::check(&room::of(&self.log, index, self.capacity)?, head.reserved, purpose)?;
        Ok(head)
    }

    /// Writes a whole row; what is left is to make it durable.
    pub(crate) fn write(
        &self,
        index: &Index,
        queue: &Arc<Queue>,
        whole: &WholeRow,
    ) -> Result<LogWriter, StoreError> {
        let WholeRow { stamp, row, bytes, end, purpose } = whole;
        let place = Folder { disk: &*self.log.disk, path: &self.log.device };
        // FENCING: no higher stamp is admitted before the row has its place in the log.
        let _admitted = self.record.admit(&place, *stamp)?;
        let head = self.head(index, row, bytes.len() as u64, *purpose)?;
        LogWriter::whole(Arc::clone(&self.log), Arc::clone(queue), head, bytes, end)
    }
}
