//! What a person asks of the lease, by an annotation of the StorageCluster in the site that it is about. It stands until
//! what was asked for is so, and is then taken off; who takes it off before that has taken it back.
//!
//! | annotation | value | in |
//! |---|---|---|
//! | `diptych.dev/handover` | the other site: it shall be active, and nothing is lost | the active site |
//! | `diptych.dev/promote` | `within-limits`, or `accept-loss`: what this site lacks is given up | the site that shall be active |
//! | `diptych.dev/force-vote` | `other-site-serves-nothing`, or `other-site-serves-nothing above <epoch>` | a site that lost the record of its vote |
//!
//! A promotion counts for half a minute and is asked for anew with each look, so it ends soon after its annotation. One that the keeper
//! refuses is taken off: left there it would approve a later takeover that nobody has looked at.

use diptych_api::StorageCluster;
use diptych_core::lease::NoPromotion;
use diptych_site::keeper::ask::HAS_ITS_VOTE;
use kube::Resource;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::EventType;
use serde_json::json;

use super::{Context, Observed};
use crate::error::{Asked, OperatorError};
use crate::events;
use crate::file::{Answer, Gateway};
use crate::names::Names;

/// A planned switch.
const HANDOVER: &str = "diptych.dev/handover";
/// A takeover that waits for a person.
const PROMOTE: &str = "diptych.dev/promote";
/// Seconds for which a promotion that was asked for once counts: a few looks.
const APPROVED_FOR: u32 = 30;

/// A vote that is lost, and that a person vouches for.
const FORCE_VOTE: &str = "diptych.dev/force-vote";

/// What follows from an annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// The keeper is asked: path below `/api/v1`. Again with each look, for as long as it has not come true.
    Ask(String),
    /// It is so: the annotation goes.
    Done(String),
    /// It can't be: the annotation goes, and an Event says why.
    Refuse(String),
    /// Nothing can be done about it now.
    Wait,
}

fn handover(target: &str, own: &str, peer: Option<&str>, role: &str) -> Step {
    match (target, role) {
        _ if peer.is_none() => Step::Refuse("there is one site only".to_owned()),
        (_, "active") if Some(target) == peer => Step::Ask("handover".to_owned()),
        (_, "passive") if Some(target) == peer => Step::Done(format!("{target} is active")),
        (_, "active") if target == own => Step::Done(format!("{target} is active")),
        (_, "passive") if target == own => Step::Refuse(
            "a planned switch is asked of the active site: annotate its StorageCluster".to_owned(),
        ),
        _ if target == own || Some(target) == peer => Step::Wait,
        _ => Step::Refuse(format!("{target:?} is none of the two sites")),
    }
}

fn promote(how: &str, role: &str) -> Step {
    match (how, role) {
        (_, "active") => Step::Done("this site is active".to_owned()),
        ("accept-loss", _) => Step::Ask(format!("promote?accept_loss=true&seconds={APPROVED_FOR}")),
        ("within-limits", _) => Step::Ask(format!("promote?accept_loss=false&seconds={APPROVED_FOR}")),
        _ => Step::Refuse(format!("{how:?} is neither within-limits nor accept-loss")),
    }
}

/// `waiting`: why the site does not serve.
fn force_vote(vouched: &str, role: &str, waiting: Option<&str>) -> Step {
    let mut words = vouched.split_whitespace();
    let above = match (words.next(), words.next(), words.next().map(str::parse::<u64>), words.next()) {
        (Some("other-site-serves-nothing"), None, None, None) => 0,
        (Some("other-site-serves-nothing"), Some("above"), Some(Ok(epoch)), None) => epoch,
        _ => {
            return Step::Refuse(format!(
                "{vouched:?} is neither other-site-serves-nothing nor other-site-serves-nothing above EPOCH"
            ));
        }
    };
    match (role, waiting) {
        ("active" | "passive", _) => Step::Done("this site has its vote".to_owned()),
        (_, Some("NoVoteRecord")) => {
            Step::Ask(format!("force-vote?other_site_serves_nothing=true&above={above}"))
        }
        (_, Some(other)) => Step::Done(format!("this site has its vote, and waits: {other}")),
        (_, None) => Step::Wait,
    }
}

/// Does what the annotations ask for.
pub(super) async fn carry_out(
    context: &Context,
    names: &Names,
    seen: &Observed,
) -> Result<(), OperatorError> {
    let Some(status) = seen.site.as_ref().and_then(|site| site.status.as_ref()) else { return Ok(()) };
    let spec = &seen.cluster.spec;
    let peer = spec.peer.as_ref().map(|peer| peer.site.as_str());
    for (annotation, asked) in seen.cluster.annotations() {
        let step = match annotation.as_str() {
            HANDOVER => handover(asked, &spec.site, peer, &status.role),
            PROMOTE => promote(asked, &status.role),
            FORCE_VOTE => force_vote(asked, &status.role, status.lease.waiting.as_deref()),
            _ => continue,
        };
        match step {
            Step::Wait => {}
            Step::Ask(command) => {
                if let Some(refused) = ask(context, seen, annotation, &command).await? {
                    end(context, names, seen, annotation, refusal(refused)).await?;
                }
            }
            Step::Done(note) => {
                end(context, names, seen, annotation, (EventType::Normal, "Switched", note)).await?;
            }
            Step::Refuse(note) => end(context, names, seen, annotation, refusal(note)).await?,
        }
    }
    Ok(())
}

const fn refusal(note: String) -> (EventType, &'static str, String) {
    (EventType::Warning, "SwitchRefused", note)
}

fn is_so(refused: &str) -> bool {
    [NoPromotion::Active.reason(), HAS_ITS_VOTE].iter().any(|reason| refused.contains(reason))
}

/// What the keeper says against it; None: nothing, or it could not be asked now.
async fn ask(
    context: &Context,
    seen: &Observed,
    annotation: &str,
    command: &str,
) -> Result<Option<String>, OperatorError> {
    let Some(gateway) = Gateway::of(&context.options, &seen.cluster).await? else { return Ok(None) };
    match gateway.command(command).await? {
        Answer::Done => tracing::info!(annotation, command, "the keeper was asked"),
        Answer::NotNow(reason) => {
            tracing::warn!(annotation, command, reason, "the keeper could not be asked");
        }
        // What was asked for came true since this site was looked at: the next look says so.
        Answer::Refused(reason) if is_so(&reason) => tracing::info!(annotation, command, "it is so already"),
        Answer::Refused(reason) | Answer::Retained { reason, .. } => return Ok(Some(reason)),
    }
    Ok(None)
}

async fn end(
    context: &Context,
    names: &Names,
    seen: &Observed,
    annotation: &str,
    (type_, reason, note): (EventType, &str, String),
) -> Result<(), OperatorError> {
    let api: Api<StorageCluster> = Api::namespaced(context.options.client.clone(), &names.namespace);
    let patch = json!({"metadata": {"annotations": {annotation: null}}});
    let taken_off = api.patch(&names.cluster, &PatchParams::default(), &Patch::Merge(&patch)).await;
    taken_off.map(|_| ()).asked(|| format!("take {annotation} off StorageCluster {}", names.cluster))?;
    let note = format!("{annotation}: {note}");
    events::tell(&context.events, &seen.cluster.object_ref(&()), type_, reason, &note, "Switch").await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handover_is_asked_for_until_the_other_site_is_active() {
        let asked = |role| handover("west", "east", Some("west"), role);
        assert_eq!(asked("active"), Step::Ask("handover".to_owned()));
        assert_eq!(asked("fenced"), Step::Wait);
        assert_eq!(asked("passive"), Step::Done("west is active".to_owned()));
    }

    #[test]
    fn a_switch_to_a_site_that_is_not_there_is_refused() {
        assert!(matches!(handover("north", "east", Some("west"), "active"), Step::Refuse(_)));
        assert!(matches!(handover("west", "east", None, "active"), Step::Refuse(_)));
        assert!(matches!(handover("east", "east", Some("west"), "passive"), Step::Refuse(_)));
    }

    #[test]
    fn loss_is_accepted_only_where_that_is_what_was_written() {
        let asks = |asked: &str| Step::Ask(asked.to_owned());
        assert_eq!(promote("within-limits", "passive"), asks("promote?accept_loss=false&seconds=30"));
        assert_eq!(promote("accept-loss", "fenced"), asks("promote?accept_loss=true&seconds=30"));
        assert!(matches!(promote("true", "passive"), Step::Refuse(_)));
        assert!(matches!(promote("accept-loss", "active"), Step::Done(_)));
    }

    #[test]
    fn a_vote_is_forced_only_where_it_is_missing_and_vouched_for() {
        let lost = Some("NoVoteRecord");
        let vouched = "other-site-serves-nothing";
        let asks = |above: u64| Step::Ask(format!("force-vote?other_site_serves_nothing=true&above={above}"));
        assert_eq!(force_vote(vouched, "fenced", lost), asks(0));
        assert_eq!(force_vote("other-site-serves-nothing above 12", "fenced", lost), asks(12));
        for unclear in
            ["", "true", "above 12", "other-site-serves-nothing 12", "other-site-serves-nothing above x"]
        {
            assert!(matches!(force_vote(unclear, "fenced", lost), Step::Refuse(_)), "{unclear}");
        }
        assert!(matches!(force_vote(vouched, "fenced", Some("Exposure")), Step::Done(_)));
        assert!(matches!(force_vote(vouched, "passive", None), Step::Done(_)));
        assert_eq!(force_vote(vouched, "fenced", None), Step::Wait);
    }
}
