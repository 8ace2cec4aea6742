//! What a person asks of the lease, by an annotation of the StorageCluster in the site that it is about. It stands until
//! what was asked for is so, and is then taken off; who takes it off before that has taken it back.
//!
//! | annotation | value | in |
//! |---|---|---|
//! | `diptych.dev/handover` | the other site: it shall be active, and nothing is lost | the active site |
//! | `diptych.dev/promote` | `within-limits`, or `accept-loss`: what this site lacks is given up | the site that shall be active |

use diptych_api::StorageCluster;
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

/// What follows from an annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// The keeper is asked: path below `/api/v1`. Again with each look, for as long as it has not come true.
    Ask(&'static str),
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
        (_, "active") if Some(target) == peer => Step::Ask("handover"),
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
        ("accept-loss", _) => Step::Ask("promote?accept_loss=true"),
        ("within-limits", _) => Step::Ask("promote?accept_loss=false"),
        _ => Step::Refuse(format!("{how:?} is neither within-limits nor accept-loss")),
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
            _ => continue,
        };
        match step {
            Step::Wait => {}
            Step::Ask(command) => ask(context, seen, annotation, command).await?,
            Step::Done(note) => {
                end(context, names, seen, annotation, (EventType::Normal, "Switched", note)).await?;
            }
            Step::Refuse(note) => {
                end(context, names, seen, annotation, (EventType::Warning, "SwitchRefused", note)).await?;
            }
        }
    }
    Ok(())
}

async fn ask(
    context: &Context,
    seen: &Observed,
    annotation: &str,
    command: &str,
) -> Result<(), OperatorError> {
    let Some(gateway) = Gateway::of(&context.options, &seen.cluster).await? else { return Ok(()) };
    match gateway.command(command).await? {
        Answer::Done => tracing::info!(annotation, command, "the keeper was asked"),
        Answer::NotNow(reason) | Answer::Refused(reason) => {
            tracing::warn!(annotation, command, reason, "the keeper could not be asked");
        }
    }
    Ok(())
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
        assert_eq!(asked("active"), Step::Ask("handover"));
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
        assert_eq!(promote("within-limits", "passive"), Step::Ask("promote?accept_loss=false"));
        assert_eq!(promote("accept-loss", "fenced"), Step::Ask("promote?accept_loss=true"));
        assert!(matches!(promote("true", "passive"), Step::Refuse(_)));
        assert!(matches!(promote("accept-loss", "active"), Step::Done(_)));
    }
}
