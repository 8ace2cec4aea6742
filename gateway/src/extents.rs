//! An extent for the other site: its ciphertext as a whole, joined from whichever rows answer, decoded if it must be; or
//! single rows of it, where neither site has enough by itself.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use diptych_core::ids::ExtentId;
use diptych_core::keys;
use diptych_wire::peer::RowSpan;
use futures::{Stream, stream};

use crate::context::Context;
use crate::error::Result;
use crate::read::{ExtentPlace, RangeReader};

/// Bytes that are read at once: a few stripes.
const WINDOW: u64 = 4 << 20;

/// Ranges of the rows that this site has of an extent: by range its bytes, or why they do not read.
pub async fn own_rows(
    context: &Context,
    extent: ExtentId,
    spans: &[RowSpan],
) -> Result<Vec<Result<Bytes, String>>> {
    let view = context.catalog().view().await?;
    if view.get(&keys::extent(extent))?.is_none() {
        return Ok(spans
            .iter()
            .map(|_| Err("the extent is not in this site's catalog".to_owned()))
            .collect());
    }
    let place = ExtentPlace::find(context, view.as_ref(), extent)?;
    drop(view);
    let agents = context.agents();
    Ok(RangeReader::new(context, &agents, &place, &[]).own(spans).await)
}

/// An extent that this site can give.
pub struct Ciphertext {
    context: Arc<Context>,
    place: ExtentPlace,
}

impl Ciphertext {
    /// None: this site's catalog does not name it, or it has no rows of it here.
    pub async fn find(context: &Arc<Context>, extent: ExtentId) -> Result<Option<Self>> {
        let view = context.catalog().view().await?;
        if view.get(&keys::extent(extent))?.is_none() {
            return Ok(None);
        }
        let place = ExtentPlace::find(context, view.as_ref(), extent)?;
        if place.placed.is_empty() {
            return Ok(None);
        }
        place.check(context, &context.agents()).await?;
        Ok(Some(Self { context: Arc::clone(context), place }))
    }

    /// Bytes of it, its tail with them.
    pub fn length(&self) -> u64 {
        u64::from(self.place.record.length)
    }

    /// A range of it, piece by piece; an error ends it early.
    pub fn stream(self, range: Range<u64>) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        stream::try_unfold((self, range), |(ciphertext, rest)| async move {
            if rest.is_empty() {
                return Ok(None);
            }
            let end = rest.end.min(rest.start + WINDOW);
            let bytes = ciphertext.place.read(&ciphertext.context, rest.start..end, &[]).await?;
            Ok(Some((bytes, (ciphertext, end..rest.end))))
        })
    }
}
