//! The nodes in neither site. The active site declares them in the catalog, so that the other one knows them after a switch;
//! each joins by a token of its own, once, and has its certificate renewed by whichever is active.

mod admit;
mod doors;
mod member;
mod token;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use diptych_catalog::{Batch, Change, Expect, Guard, Limits, View, Write};
use diptych_core::ids::{Epoch, NodeName, SiteName};
use diptych_core::keys;
use diptych_core::placement::PlacementMap;
use diptych_core::records::{OutsideNode, Record};

use crate::agents::NodeEndpoint;
use crate::config::OutsideNodeConfig;
use crate::context::SiteContext;
use crate::error::SiteError;
use crate::survey::each;

pub use admit::{ADMIT, Admission, OutsideJoins, RENEW, router};
pub use member::{MemberError, Membership};
pub use token::{OutsideToken, TokenError};

/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// Writes down what this site's operator declares, each time that the site becomes active; for ever.
pub(crate) async fn declare(context: &SiteContext) {
    let mut standing = context.standing.clone();
    loop {
        let Ok(now) = standing.wait_for(|now| now.active).await.map(|now| *now) else { return };
        if let Err(error) = write(context, now.epoch, &context.outside.config.nodes).await {
            tracing::warn!(site = %context.site, %error, "the outside nodes could not be written down now");
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        if standing.wait_for(|then| !then.active || then.epoch != now.epoch).await.is_err() {
            return;
        }
    }
}

/// Every outside node that is declared, with its record as it stands.
pub(crate) fn declared(view: &dyn View) -> Result<BTreeMap<NodeName, (Bytes, OutsideNode)>, SiteError> {
    let mut nodes = BTreeMap::new();
    each(view, &keys::outside_nodes(), |key, value| {
        if let Some(name) = keys::outside_node_of(key) {
            nodes.insert(name, (value.clone(), OutsideNode::decode(value)?));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(nodes)
}

/// Those that have joined: nobody answers for the others yet. One that was given another token is what it was until it has
/// spent that too.
pub(crate) fn endpoints(view: &dyn View, map: &PlacementMap) -> Result<Vec<NodeEndpoint>, SiteError> {
    let is_known = |name: &NodeName| map.nodes.iter().any(|node| node.name == *name);
    let all = declared(view)?.into_iter();
    let joined = all.filter(|(name, (_, node))| node.spent_by.is_some() || is_known(name));
    Ok(joined
        .map(|(name, (_, node))| NodeEndpoint {
            name,
            address: node.address,
            socket: None,
            share: node.share,
        })
        .collect())
}

async fn write(context: &SiteContext, epoch: Epoch, nodes: &[OutsideNodeConfig]) -> Result<(), SiteError> {
    let known = declared(context.catalog.view().await?.as_ref())?;
    for some in changes(&context.site, nodes, &known).chunks(Limits::ACTIVE.changes) {
        let batch = Batch { epoch: Some(epoch), changes: some.to_vec() };
        if !context.catalog.commit(batch).await?.all_applied() {
            return Err(SiteError::Changed);
        }
    }
    Ok(())
}

/// From what is written down to what is declared. A node that the other site declared is left as it is.
fn changes(
    site: &SiteName,
    nodes: &[OutsideNodeConfig],
    known: &BTreeMap<NodeName, (Bytes, OutsideNode)>,
) -> Vec<Change> {
    let change = |name: &NodeName, expect: Expect, write: fn(keys::Key, Bytes) -> Write, value: Bytes| {
        let key = keys::outside_node(name);
        Change { guards: vec![Guard { key: key.clone(), expect }], writes: vec![write(key, value)] }
    };
    let put = nodes.iter().filter_map(|node| {
        let (raw, old) = match known.get(&node.name) {
            Some((raw, old)) => (Some(raw), Some(old)),
            None => (None, None),
        };
        let new = node.record(site, old);
        let expect = raw.cloned().map_or(Expect::Absent, Expect::Value);
        (old != Some(&new)).then(|| change(&node.name, expect, Write::Put, Bytes::from(new.encode())))
    });
    let is_declared = |name: &NodeName| nodes.iter().any(|node| node.name == *name);
    let gone = known.iter().filter(|(name, (_, node))| node.declared_by == *site && !is_declared(name));
    let delete = |key: keys::Key, _: Bytes| Write::Delete(key);
    let gone = gone.map(|(name, (raw, _))| change(name, Expect::Value(raw.clone()), delete, Bytes::new()));
    put.chain(gone).collect()
}

impl OutsideNodeConfig {
    /// Its record. Who spent the token stays known, another token is fresh.
    fn record(&self, site: &SiteName, old: Option<&OutsideNode>) -> OutsideNode {
        let same_token = old.filter(|old| old.token == self.token);
        OutsideNode {
            address: self.address.clone(),
            devices: self
                .devices
                .iter()
                .map(|device| (device.id, device.path.display().to_string()))
                .collect(),
            declared_by: old.map_or_else(|| site.clone(), |old| old.declared_by.clone()),
            token: self.token.clone(),
            spent_by: same_token.and_then(|old| old.spent_by),
            share: self.share.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::DeviceId;
    use diptych_core::placement::NodeShare;

    use super::*;
    use crate::config::DeviceConfig;

    fn node(name: &str, token: &str) -> OutsideNodeConfig {
        OutsideNodeConfig {
            name: name.parse().expect("a name"),
            address: "192.0.2.1:8446".to_owned(),
            devices: vec![DeviceConfig { id: DeviceId(1), path: "/d0".into() }],
            token: token.to_owned(),
            share: NodeShare::default(),
        }
    }

    fn known(
        site: &str,
        nodes: &[(OutsideNodeConfig, Option<[u8; 32]>)],
    ) -> BTreeMap<NodeName, (Bytes, OutsideNode)> {
        let site = site.parse().expect("a name");
        let record = |(node, spent_by): &(OutsideNodeConfig, Option<[u8; 32]>)| {
            let record = OutsideNode { spent_by: *spent_by, ..node.record(&site, None) };
            (node.name.clone(), (Bytes::from(record.encode()), record))
        };
        nodes.iter().map(record).collect()
    }

    fn written(changes: &[Change]) -> Vec<Option<OutsideNode>> {
        let value = |write: &Write| match write {
            Write::Put(_, value) => Some(OutsideNode::decode(value).expect("it reads")),
            Write::Delete(_) => None,
        };
        changes.iter().flat_map(|change| &change.writes).map(value).collect()
    }

    #[test]
    fn a_node_is_written_once_and_keeps_who_spent_its_token_until_it_has_another() {
        let east: SiteName = "east".parse().expect("a name");
        let fresh = changes(&east, &[node("o1", "t1")], &BTreeMap::new());
        assert_eq!(written(&fresh), [Some(node("o1", "t1").record(&east, None))]);
        let joined = known("east", &[(node("o1", "t1"), Some([7; 32]))]);
        assert!(changes(&east, &[node("o1", "t1")], &joined).is_empty());
        let moved = OutsideNodeConfig { address: "192.0.2.9:8446".to_owned(), ..node("o1", "t1") };
        let moved = written(&changes(&east, &[moved], &joined)).pop().flatten().expect("it is written");
        assert_eq!((moved.address.as_str(), moved.spent_by), ("192.0.2.9:8446", Some([7; 32])));
        let again =
            written(&changes(&east, &[node("o1", "t2")], &joined)).pop().flatten().expect("it is written");
        assert_eq!((again.token.as_str(), again.spent_by), ("t2", None));
    }

    #[test]
    fn a_site_takes_away_only_what_it_declared_itself() {
        let east: SiteName = "east".parse().expect("a name");
        assert_eq!(written(&changes(&east, &[], &known("east", &[(node("o1", "t1"), None)]))), [None]);
        assert!(changes(&east, &[], &known("west", &[(node("o1", "t1"), None)])).is_empty());
    }
}
