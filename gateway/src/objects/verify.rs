//! Reading objects from this site's own rows alone, with every tag verified: what a failover would have to live on.

use diptych_catalog::{View, blobs_of};
use diptych_core::drill::Samples;
use diptych_core::ids::BucketId;
use diptych_core::keys;
use diptych_core::records::{Blob, Head, HeadBody, Record};
use rand::Rng;

use super::get::extents;
use super::{Objects, Target};
use crate::error::{GatewayError, Result};
use crate::read::read_alone;

/// Heads that a draw looks at, at most: of more, the first ones stand for all.
const LOOKED_AT: usize = 200_000;
/// Heads of a page.
const PAGE: usize = 1_000;
/// Failures that are told.
const TOLD: usize = 20;

/// An object that was drawn.
struct Drawn {
    name: String,
    size: u64,
    blobs: Vec<Blob>,
}

impl Objects {
    /// Draws objects at random and reads them.
    pub(crate) async fn verify_sample(&self, objects: usize) -> Result<Samples> {
        let view = self.context.catalog().view().await?;
        let mut samples = Samples::default();
        let drawn = self.draw(view.as_ref(), objects, &mut samples)?;
        drop(view);
        for object in drawn {
            self.verify_one(object, &mut samples).await;
        }
        Ok(samples)
    }

    /// Reads one object.
    pub(crate) async fn verify_object(&self, namespace: &str, bucket: &str, key: &str) -> Result<Samples> {
        let (info, blobs) = self.find(namespace, Target::newest(bucket, key)).await?;
        let mut samples = Samples::default();
        let name = format!("{bucket}/{key}");
        self.verify_one(Drawn { name, size: info.object.size, blobs }, &mut samples).await;
        Ok(samples)
    }

    async fn verify_one(&self, object: Drawn, samples: &mut Samples) {
        samples.objects += 1;
        match read_alone(&self.context, &object.blobs, object.size).await {
            Ok(bytes) => samples.bytes += bytes,
            Err(error) if samples.failed.len() < TOLD => {
                samples.failed.push(format!("{}: {error}", object.name));
            }
            Err(_) => {}
        }
    }

    /// Each head that is looked at is as likely as any other to be drawn (reservoir sampling, Vitter's algorithm R).
    fn draw(&self, view: &dyn View, wanted: usize, samples: &mut Samples) -> Result<Vec<Drawn>> {
        let mut range = keys::prefix_range(b"h/");
        let (mut drawn, mut seen) = (Vec::new(), 0_usize);
        while seen < LOOKED_AT {
            let page = view.scan(&range, PAGE)?;
            for (key, raw) in &page.entries {
                let Some((bucket, object)) = keys::object_of_head(key) else { continue };
                seen += 1;
                let place =
                    if drawn.len() < wanted { drawn.len() } else { rand::rng().random_range(0..seen) };
                if place >= wanted {
                    continue;
                }
                match self.found(view, bucket, &object, raw)? {
                    Found::Whole(object) if place < drawn.len() => drawn[place] = object,
                    Found::Whole(object) => drawn.push(object),
                    Found::Exposed => samples.exposed += 1,
                    Found::Deleted => {}
                }
            }
            match page.next {
                Some(next) => range.start = next,
                None => break,
            }
        }
        Ok(drawn)
    }

    fn found(&self, view: &dyn View, bucket: BucketId, key: &[u8], raw: &[u8]) -> Result<Found> {
        let head = Head::decode(raw)?;
        let HeadBody::Object(object) = &head.body else { return Ok(Found::Deleted) };
        let blobs = blobs_of(view, bucket, head.at.version, &object.content).map_err(GatewayError::from)?;
        for extent in extents(&blobs) {
            if view.get(&keys::wanted(self.context.site(), extent))?.is_some() {
                return Ok(Found::Exposed);
            }
        }
        let name = String::from_utf8_lossy(key).into_owned();
        Ok(Found::Whole(Drawn { name, size: object.size, blobs }))
    }
}

/// What a head names.
enum Found {
    /// An object whose bytes this site has, as far as its catalog knows.
    Whole(Drawn),
    /// One that it was told of, and whose bytes are on their way.
    Exposed,
    /// None any more.
    Deleted,
}
