//! What came out, as a table, as sentences with what is asked for, and as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::raw::Raw;
use super::{Recovery, mib};

/// Asked for: this part of the raw limit, and so many times as fast as MinIO.
const OF_LIMIT: f64 = 0.5;
const TIMES: f64 = 10.0;

/// Both stores, and what bounds them.
#[derive(Debug, Serialize)]
pub(in crate::bench) struct Healing {
    diptych: Recovery,
    minio: Option<Recovery>,
    raw: Raw,
    ratios: Ratios,
}

/// Ratios, Diptych to what it is compared with.
#[derive(Debug, Serialize)]
struct Ratios {
    /// Bytes rewritten in a second to the raw limit.
    of_limit: f64,
    of_limit_asked: f64,
    /// The same objects in so much less time; MinIO has half as much to write of them.
    times_as_fast: Option<f64>,
    times_as_fast_asked: f64,
    /// Bytes rewritten in a second.
    times_the_bytes: Option<f64>,
}

impl Healing {
    /// `minio`: None where Diptych was measured alone.
    pub(super) fn new(diptych: Recovery, minio: Option<Recovery>, raw: Raw) -> Self {
        let ratios = Ratios {
            of_limit: diptych.rewritten_mib_per_s() / raw.limit_mib_per_s(),
            of_limit_asked: OF_LIMIT,
            times_as_fast: minio.as_ref().map(|minio| minio.healed_s / diptych.healed_s),
            times_as_fast_asked: TIMES,
            times_the_bytes: minio
                .as_ref()
                .map(|minio| diptych.rewritten_mib_per_s() / minio.rewritten_mib_per_s()),
        };
        Self { diptych, minio, raw, ratios }
    }

    /// As Markdown.
    pub(super) fn render(&self) -> String {
        let mut text = "Healing\n\n| | lost | objects | MiB of objects | noticed after s | healed in s | MiB rewritten | MiB/s |\n\
             |---|---|---|---|---|---|---|---|\n"
            .to_owned();
        let stores = [("Diptych", Some(&self.diptych)), ("MinIO", self.minio.as_ref())];
        for (name, healed) in stores.into_iter().filter_map(|(name, healed)| Some((name, healed?))) {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
                healed.lost,
                healed.objects,
                mib(healed.object_bytes),
                healed.noticed_s,
                healed.healed_s,
                mib(healed.rewritten_bytes),
                healed.rewritten_mib_per_s(),
            );
        }
        let Raw { disk_mib_per_s, codec_mib_per_s } = &self.raw;
        let ratios = &self.ratios;
        let _ = write!(
            text,
            "\nRaw limit: the disk takes {disk_mib_per_s:.0} MiB/s in a row, one core makes {codec_mib_per_s:.0} MiB/s of rows. Diptych \
             rewrote at {:.2} of the slower; {OF_LIMIT} are asked for.",
            ratios.of_limit
        );
        if let (Some(time), Some(bytes)) = (ratios.times_as_fast, ratios.times_the_bytes) {
            let _ = write!(
                text,
                "\nThe same objects healed {time:.2} times as fast as by MinIO, which had half as much of them to write, and {bytes:.2} times the \
                 bytes a second; {TIMES} times are asked for."
            );
        }
        text
    }
}
