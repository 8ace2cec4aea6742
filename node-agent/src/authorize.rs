//! Who may ask an agent for what (docs/design.md, Who may do what).

use diptych_core::ids::SiteName;
use diptych_wire::agent::{AgentError, Op};
use diptych_wire::identity::{Identity, Role};

/// Whether `who` may ask `agent` for `op`.
pub(crate) fn authorize(agent: &Identity, who: &Identity, op: Op) -> Result<(), AgentError> {
    if who.cluster != agent.cluster {
        return Err(AgentError::WrongCluster { have: agent.cluster });
    }
    // Stamps of two sites can't be compared: keepers are numbered by site. An outside node serves whichever is active.
    let near = who.site == agent.site || agent.site == SiteName::outside();
    let allowed = match who.role {
        Role::Gateway | Role::Operator => near && (who.role == Role::Operator || !for_operators(op)),
        Role::Agent => near && for_siblings(op),
        Role::Witness | Role::Peer | Role::Catalog | Role::Client | Role::Join => false,
    };
    if allowed { Ok(()) } else { Err(AgentError::Denied { who: who.to_string(), op: op.name().to_owned() }) }
}

/// What changes the site's devices or keys, and what repair does, is the keeper's.
const fn for_operators(op: Op) -> bool {
    match op {
        Op::Raise | Op::Rebuild | Op::Cross | Op::PutKeyring | Op::Format => true,
        Op::Hello
        | Op::Ping
        | Op::PlaceRows
        | Op::Begin
        | Op::Append
        | Op::Seal
        | Op::Abandon
        | Op::Read
        | Op::Describe
        | Op::Delete
        | Op::Inventory
        | Op::Status
        | Op::Scrub
        | Op::GetKeyring
        | Op::Metrics
        | Op::Verify
        | Op::Locate
        | Op::Lend => false,
    }
}

/// What an agent needs of another to rebuild a row or to bring an extent over.
const fn for_siblings(op: Op) -> bool {
    matches!(
        op,
        Op::Hello
            | Op::Ping
            | Op::Read
            | Op::Describe
            | Op::PlaceRows
            | Op::Begin
            | Op::Append
            | Op::Seal
            | Op::Abandon
            | Op::Verify
    )
}

#[cfg(test)]
mod tests {
    use diptych_core::ids::ClusterId;

    use super::*;

    fn identity(cluster: u8, site: &str, role: Role) -> Identity {
        Identity {
            cluster: ClusterId([cluster; 16]),
            site: site.parse().expect("a name"),
            role,
            name: "x".to_owned(),
        }
    }

    #[test]
    fn only_gateways_operators_and_siblings_of_the_site_are_served() {
        let agent = identity(1, "east", Role::Agent);
        let may = |who: &Identity, op| authorize(&agent, who, op).is_ok();
        assert!(may(&identity(1, "east", Role::Gateway), Op::PlaceRows));
        assert!(may(&identity(1, "east", Role::Operator), Op::Raise));
        assert!(may(&identity(1, "east", Role::Agent), Op::Read));
        assert!(!may(&identity(1, "east", Role::Agent), Op::Delete));
        assert!(!may(&identity(1, "east", Role::Agent), Op::Lend));
        assert!(!may(&identity(1, "east", Role::Gateway), Op::Format));
        for role in [Role::Witness, Role::Peer, Role::Catalog, Role::Client] {
            assert!(!may(&identity(1, "east", role), Op::Read), "{role}");
        }
        assert!(!may(&identity(1, "west", Role::Gateway), Op::PlaceRows));
        let foreign = authorize(&agent, &identity(2, "east", Role::Operator), Op::Read);
        assert_eq!(foreign, Err(AgentError::WrongCluster { have: agent.cluster }));
    }

    #[test]
    fn an_outside_agent_serves_either_site() {
        let agent = identity(1, "outside", Role::Agent);
        for site in ["east", "west"] {
            assert_eq!(authorize(&agent, &identity(1, site, Role::Gateway), Op::PlaceRows), Ok(()));
            assert_eq!(authorize(&agent, &identity(1, site, Role::Agent), Op::Verify), Ok(()));
            let near = identity(1, site, Role::Agent);
            assert!(authorize(&near, &agent, Op::Read).is_err(), "it may ask nothing of a site's agents");
        }
    }
}
