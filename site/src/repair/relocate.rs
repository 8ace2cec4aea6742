//! Rows that can be read and belong elsewhere.

use diptych_core::records::PlacedRow;

use super::{delete_rows, exchange, rebuild};
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::place::Place;
use crate::survey::Need;

/// Moves all rows that `need` says, or none: half of them could leave the extent surviving less than before. Rows moved.
///
/// FENCING: the new rows are durable and read back before the placement names them; the old ones are deleted, by instance and
/// under this keeper's stamp, only once it names them no more.
pub(super) async fn relocate(context: &SiteContext, place: &Place, need: &Need) -> Result<u64, SiteError> {
    let made = need.moves.iter().map(|step| rebuild(context, place, need, step.row, step.to));
    let mut moved: Vec<PlacedRow> = Vec::new();
    let mut failure = None;
    for outcome in futures::future::join_all(made).await {
        match outcome {
            Ok((row, _)) => moved.push(row),
            Err(error) => failure = Some(error),
        }
    }
    if let Some(error) = failure {
        delete_rows(place, need.facts.extent, moved.iter()).await;
        return Err(error);
    }
    if exchange(context, place, need, &moved).await? {
        let is_old = |old: &&PlacedRow| need.moves.iter().any(|step| step.row == old.row);
        delete_rows(place, need.facts.extent, need.held().iter().filter(is_old)).await;
    }
    Ok(moved.len() as u64)
}
