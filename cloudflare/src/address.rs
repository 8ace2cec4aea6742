//! The public name: which address records it has, and the one batch that makes it so.
//!
//! Only records with this cluster's ownership comment are ever changed. A foreign one on the name stops everything, by
//! name: taking a name over is a decision for a person.

use std::fmt;
use std::net::IpAddr;

use diptych_core::ids::{ClusterId, SiteName};
use thiserror::Error;

use crate::client::{
    self, Batch, Client, DnsRecord, NewRecord, PatchRecord, RecordFilter, RecordType, TTL_AUTO, ZoneId,
};

/// The comment on each record that belongs to this cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(String);

impl Owner {
    /// `diptych:<cluster id>`.
    pub fn new(cluster: ClusterId) -> Self {
        Self(format!("diptych:{cluster}"))
    }

    /// The comment's text.
    pub fn comment(&self) -> &str {
        &self.0
    }

    /// Name of what a site has outside the zone: `diptych-<cluster id>-<site>`.
    pub fn name_of(&self, site: &SiteName) -> String {
        format!("{}-{site}", self.0.replace(':', "-"))
    }

    /// The mark on what only a site's own may carry: `diptych:<cluster id> <site>`.
    pub(crate) fn mark_of(&self, site: &SiteName) -> String {
        format!("{} {site}", self.0)
    }

    /// Whether this record is ours to change.
    pub fn owns(&self, record: &DnsRecord) -> bool {
        record.comment.as_deref() == Some(self.comment())
    }
}

/// Where the public name should point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTarget {
    /// Whole name, with the zone.
    pub hostname: String,
    /// Addresses of the active site's gateways; one record each.
    pub addresses: Vec<IpAddr>,
    /// Fronted by Cloudflare's edge.
    pub proxied: bool,
    /// Seconds; not used where `proxied`, whose time is Cloudflare's.
    pub ttl: u32,
    /// Whose records these are.
    pub owner: Owner,
}

impl NameTarget {
    fn ttl(&self) -> u32 {
        if self.proxied { TTL_AUTO } else { self.ttl }
    }

    fn record(&self, address: IpAddr) -> NewRecord {
        NewRecord {
            name: self.hostname.clone(),
            kind: kind(address),
            content: address.to_string(),
            proxied: self.proxied,
            ttl: self.ttl(),
            comment: self.owner.comment().to_owned(),
        }
    }

    fn patch(&self, record: &DnsRecord, address: IpAddr) -> PatchRecord {
        PatchRecord {
            id: record.id.clone(),
            name: self.hostname.clone(),
            kind: kind(address),
            content: Some(address.to_string()),
            proxied: Some(self.proxied),
            ttl: Some(self.ttl()),
            comment: Some(self.owner.comment().to_owned()),
        }
    }

    fn is_met_by(&self, record: &DnsRecord) -> bool {
        record.proxied == self.proxied && record.ttl == self.ttl()
    }
}

fn kind(address: IpAddr) -> RecordType {
    if address.is_ipv4() { RecordType::A } else { RecordType::Aaaa }
}

/// Records on the public name that this cluster does not own.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{hostname} has records that this cluster does not own, and nothing was changed: {}. Delete them, or set their comment \
     to \"{comment}\" to hand them over",
    Listed(.records)
)]
pub struct ForeignRecords {
    /// The public name.
    pub hostname: String,
    /// The comment that ours carry.
    pub comment: String,
    /// Those in the way.
    pub records: Vec<DnsRecord>,
}

struct Listed<'a>(&'a [DnsRecord]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, record) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(formatter, "{separator}{} {} (id {})", record.kind, record.content, record.id)?;
        }
        Ok(())
    }
}

/// The batch that makes the name point there, from a listing of its records. Empty: it already does.
///
/// # Errors
/// Address or alias records on the name that another owner made. Records of other types are nobody's concern here.
pub fn plan_name(listing: &[DnsRecord], target: &NameTarget) -> Result<Batch, ForeignRecords> {
    Ok(difference(owned_records(listing, &target.hostname, &target.owner)?, target))
}

/// The address and alias records of a name.
///
/// # Errors
/// Another owner made one of them.
pub(crate) fn owned_records<'a>(
    listing: &'a [DnsRecord],
    hostname: &str,
    owner: &Owner,
) -> Result<Vec<&'a DnsRecord>, ForeignRecords> {
    let present = |record: &&DnsRecord| {
        record.name.eq_ignore_ascii_case(hostname) && !matches!(record.kind, RecordType::Other(_))
    };
    let (owned, foreign): (Vec<_>, Vec<_>) =
        listing.iter().filter(present).partition(|record| owner.owns(record));
    if foreign.is_empty() {
        return Ok(owned);
    }
    Err(ForeignRecords {
        hostname: hostname.to_owned(),
        comment: owner.comment().to_owned(),
        records: foreign.into_iter().cloned().collect(),
    })
}

fn difference(mut owned: Vec<&DnsRecord>, target: &NameTarget) -> Batch {
    let mut wanted = target.addresses.clone();
    wanted.sort_unstable();
    wanted.dedup();
    let mut batch = Batch::default();
    // What has the right content keeps its record.
    wanted.retain(|address| {
        let right =
            |record: &&DnsRecord| record.kind == kind(*address) && record.content.parse() == Ok(*address);
        let Some(at) = owned.iter().position(right) else { return true };
        let record = owned.remove(at);
        if !target.is_met_by(record) {
            batch.patches.push(target.patch(record, *address));
        }
        false
    });
    // A record of the right type is changed in place: one change for each key that spreads to the edge.
    for address in wanted {
        match owned.iter().position(|record| record.kind == kind(address)) {
            Some(at) => batch.patches.push(target.patch(owned.remove(at), address)),
            None => batch.posts.push(target.record(address)),
        }
    }
    batch.deletes = owned.into_iter().map(|record| record.id.clone()).collect();
    batch
}

/// What [`point_name`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointed {
    /// Nothing: it was right.
    AlreadyRight,
    /// One batch.
    Changed,
}

/// Why the name could not be pointed.
#[derive(Debug, Error)]
pub enum PointError {
    /// Somebody else's records are on it.
    #[error(transparent)]
    Foreign(#[from] ForeignRecords),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] client::Error),
}

/// Lists the name's records.
pub async fn name_records(
    client: &Client,
    zone: &ZoneId,
    hostname: &str,
) -> Result<Vec<DnsRecord>, client::Error> {
    client.records(zone, &RecordFilter { name: Some(hostname.to_owned()), kind: None }).await
}

/// Makes the public name point at the target: one call to look, and one batch if it does not yet.
pub async fn point_name(client: &Client, zone: &ZoneId, target: &NameTarget) -> Result<Pointed, PointError> {
    let listing = name_records(client, zone, &target.hostname).await?;
    let batch = plan_name(&listing, target)?;
    if batch.is_empty() {
        return Ok(Pointed::AlreadyRight);
    }
    client.batch(zone, &batch).await?;
    Ok(Pointed::Changed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::RecordId;

    fn owner() -> Owner {
        Owner::new(ClusterId([7; 16]))
    }

    fn target(addresses: &[&str]) -> NameTarget {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        NameTarget {
            hostname: "files.example.com".to_owned(),
            addresses,
            proxied: true,
            ttl: 60,
            owner: owner(),
        }
    }

    fn record(id: &str, kind: RecordType, content: &str) -> DnsRecord {
        DnsRecord {
            id: RecordId(id.to_owned()),
            name: "files.example.com".to_owned(),
            kind,
            content: content.to_owned(),
            proxied: true,
            ttl: 1,
            comment: Some(owner().comment().to_owned()),
        }
    }

    /// What a batch leaves of a listing.
    fn applied(listing: &[DnsRecord], batch: &Batch) -> Vec<DnsRecord> {
        let mut after: Vec<_> =
            listing.iter().filter(|held| !batch.deletes.contains(&held.id)).cloned().collect();
        for patch in &batch.patches {
            let held = after
                .iter_mut()
                .find(|held| held.id == patch.id)
                .expect("a patch names a record that is kept");
            held.content = patch.content.clone().expect("planned patches are whole");
            held.proxied = patch.proxied.expect("planned patches are whole");
            held.ttl = patch.ttl.expect("planned patches are whole");
        }
        for (index, post) in batch.posts.iter().enumerate() {
            after.push(DnsRecord {
                proxied: post.proxied,
                ttl: post.ttl,
                comment: Some(post.comment.clone()),
                ..record(&format!("new{index}"), post.kind.clone(), &post.content)
            });
        }
        after
    }

    #[test]
    fn a_name_that_is_right_needs_no_call() {
        let listing = [record("a", RecordType::A, "192.0.2.1"), record("b", RecordType::Aaaa, "2001:db8::1")];
        assert!(plan_name(&listing, &target(&["2001:db8::1", "192.0.2.1"])).expect("ours").is_empty());
    }

    #[test]
    fn a_foreign_record_stops_the_plan_and_is_named() {
        let foreign = DnsRecord { comment: None, ..record("f00", RecordType::A, "198.51.100.9") };
        let error = plan_name(&[foreign, record("a", RecordType::A, "192.0.2.1")], &target(&["192.0.2.2"]));
        let text = error.expect_err("not ours").to_string();
        assert!(
            text.contains("198.51.100.9") && text.contains("f00") && text.contains("diptych:0707"),
            "{text}"
        );
    }

    #[test]
    fn a_flip_changes_records_in_place_and_leaves_other_types_alone() {
        let txt = DnsRecord { comment: None, ..record("t", RecordType::Other("TXT".to_owned()), "v=spf1") };
        let batch = plan_name(&[record("a", RecordType::A, "192.0.2.1"), txt], &target(&["192.0.2.9"]))
            .expect("ours");
        assert_eq!((batch.deletes.len(), batch.patches.len(), batch.posts.len()), (0, 1, 0));
        assert_eq!(batch.patches[0].content.as_deref(), Some("192.0.2.9"));
    }

    #[test]
    fn an_owned_alias_gives_way_to_addresses() {
        let batch = plan_name(&[record("c", RecordType::Cname, "x.example.net")], &target(&["192.0.2.1"]))
            .expect("ours");
        assert_eq!((batch.deletes.len(), batch.posts.len()), (1, 1));
    }

    fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
        let v4 = (0u8..6).prop_map(|last| IpAddr::from([192, 0, 2, last]));
        let v6 = (0u16..3).prop_map(|last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]));
        proptest::collection::vec(prop_oneof![v4, v6], 0..6)
    }

    proptest! {
        #[test]
        fn any_listing_ends_at_the_target_and_stays_there(
            before in addresses(), wanted in addresses(), was_proxied: bool,
        ) {
            let listing: Vec<_> = before.iter().enumerate().map(|(index, address)| DnsRecord {
                proxied: was_proxied,
                ..record(&index.to_string(), kind(*address), &address.to_string())
            }).collect();
            let target = NameTarget { addresses: wanted.clone(), ..target(&[]) };
            let after = applied(&listing, &plan_name(&listing, &target).expect("ours"));
            let mut got: Vec<IpAddr> = after.iter().map(|held| held.content.parse().expect("an address")).collect();
            let mut wanted = wanted;
            got.sort_unstable();
            wanted.sort_unstable();
            wanted.dedup();
            prop_assert_eq!(got, wanted);
            prop_assert!(after.iter().all(|held| held.proxied && held.ttl == TTL_AUTO));
            prop_assert!(plan_name(&after, &target).expect("ours").is_empty());
        }
    }
}
