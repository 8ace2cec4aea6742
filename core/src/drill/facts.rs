//! What is known of both sites before anything is done: whether a drill may begin, and what a failover now would be like.

use serde::{Deserialize, Serialize};

use super::spec::{DrillMode, DrillSpec};
use crate::edge::EdgeVerdict;
use crate::lease::{Millis, Timers};

/// From the end of the promise to the first good write, at worst: vote, swap and flip, gate, propagation of the name
/// (docs/lease.md, takeover after kill -9).
const AFTER_THE_PROMISE: Millis = Millis(2_000);

/// Where a site stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It takes writes.
    Active,
    /// It follows.
    Passive,
    /// Neither, until it knows more.
    Fenced,
}

/// What lies in the active site only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposed {
    /// Bytes of ciphertext.
    pub bytes: u64,
    /// Since the oldest of it was committed.
    pub age: Millis,
}

/// What a keeper knows of both sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// This site.
    pub standing: Standing,
    /// The passive site takes over by itself.
    pub automatic: bool,
    /// `failover.lease.duration`.
    pub lease: Millis,
    /// `maxLossOnPromotion.age`.
    pub max_loss_age: Millis,
    /// The other site's keeper answers.
    pub peer_connected: bool,
    /// The witness answered the last call.
    pub witness_reachable: bool,
    /// Until the witness's record has stood long enough for whoever wants to take over.
    pub witness_ages: Millis,
    /// Extents that wait for repair, in both sites as far as is known.
    pub repairs: u64,
    /// None: not known now.
    pub exposed: Option<Exposed>,
    /// Why the public name can't be kept by this site.
    pub name_trouble: Option<String>,
    /// What the edge says of this site.
    pub edge: EdgeVerdict,
    /// Since the end of the last drill that moved the role; None: there was none.
    pub since_last_drill: Option<Millis>,
    /// The drill that the other site runs; None: it runs none, as far as is known.
    pub other_drill: Option<String>,
}

/// One look before a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, one word.
    pub name: String,
    /// Whether it is as it must be.
    pub passed: bool,
    /// What was found.
    pub finding: String,
}

fn check(name: &str, passed: bool, finding: impl Into<String>) -> Check {
    Check { name: name.to_owned(), passed, finding: finding.into() }
}

/// How long the passive site takes at worst until it has taken over from an active one that falls silent.
fn takeover(lease: Millis) -> Millis {
    let timers = Timers::for_lease(lease);
    Millis(timers.peer_wait.max(timers.witness_wait).0 + AFTER_THE_PROMISE.0)
}

/// Everything that must hold before a drill begins, whether or not it does.
pub fn checks(facts: &Facts, spec: &DrillSpec) -> Vec<Check> {
    let (mode, limits) = (spec.mode, &spec.guards);
    let role = match facts.standing {
        Standing::Passive => "this site is passive",
        Standing::Active => "this site is active: a drill is run by the passive one, ask it there",
        Standing::Fenced => "this site is fenced: it knows too little to take part",
    };
    let mut all = vec![check("Role", facts.standing == Standing::Passive, role)];
    let other = facts.other_drill.as_ref().map_or_else(
        || "the other site runs no drill".to_owned(),
        |id| format!("the other site runs drill {id}: wait for its end, or abort it there"),
    );
    all.push(check("OtherDrill", facts.other_drill.is_none(), other));
    if mode == DrillMode::Isolated {
        return all;
    }
    let answers = |answers: bool| if answers { "answers" } else { "does not answer" };
    all.push(check(
        "Peer",
        facts.peer_connected,
        format!("the other site {}", answers(facts.peer_connected)),
    ));
    all.push(check(
        "Witness",
        facts.witness_reachable,
        format!("the witness {}", answers(facts.witness_reachable)),
    ));
    let repairs = format!("{} extents wait for repair", facts.repairs);
    all.push(check("Repair", facts.repairs == 0, repairs));
    all.push(match facts.exposed {
        None => check("Exposure", false, "what lies in the active site only is not known now"),
        Some(Exposed { bytes, age }) => {
            let within = bytes <= limits.exposed_bytes && age <= limits.exposed_age;
            check(
                "Exposure",
                within,
                format!(
                    "{bytes} bytes lie in the active site only, for {age}; {} bytes and {} are allowed",
                    limits.exposed_bytes, limits.exposed_age
                ),
            )
        }
    });
    let trouble = facts.name_trouble.as_deref();
    all.push(check("PublicName", trouble.is_none(), trouble.unwrap_or("it could be pointed here")));
    match facts.edge {
        EdgeVerdict::Reached => all.push(check("Edge", true, "the edge reaches this site")),
        EdgeVerdict::Unreached => {
            all.push(check(
                "Edge",
                false,
                "the edge does not reach this site: the public name would lead nowhere",
            ));
        }
        EdgeVerdict::Unknown => {}
    }
    let by_itself = if facts.automatic {
        "the passive site takes over by itself"
    } else {
        "failover.mode is Manual: a person would have to promote the passive site"
    };
    all.push(check("Mode", facts.automatic || mode == DrillMode::Switchover, by_itself));
    if mode == DrillMode::Outage {
        let (outage, needed) = (spec.outage, takeover(facts.lease));
        let finding = format!("an outage of {outage}; with this lease a takeover takes up to {needed}");
        all.push(check("Outage", outage >= needed, finding));
    }
    if mode.switches() {
        let rested = facts.since_last_drill.is_none_or(|since| since >= limits.cool_down);
        let since = facts.since_last_drill.map_or_else(
            || "there was no drill before".to_owned(),
            |since| format!("the last one ended {since} ago"),
        );
        all.push(check("CoolDown", rested, format!("{since}; {} are asked for", limits.cool_down)));
    }
    all
}

/// What a failover would be like if the active site died now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// From the last good write to the first one at the other site, at worst. None: it would not happen by itself.
    pub recovery_time: Option<Millis>,
    /// How far back the newest lost write would be, at worst. None: not known.
    pub recovery_point: Option<Millis>,
    /// Bytes that would be lost with the active site, until it returns.
    pub exposed_bytes: Option<u64>,
    /// Why it would not happen by itself, and what to do.
    pub obstacle: Option<String>,
}

/// Predicts a failover from what is known now.
pub fn predict(facts: &Facts) -> Prediction {
    let obstacle = obstacle(facts);
    let timers = Timers::for_lease(facts.lease);
    // A site that was away a moment ago lived on the witness: who takes over then waits for that, too.
    let witness = facts.witness_ages.min(timers.witness_wait);
    let promise = if facts.peer_connected { timers.peer_wait.max(witness) } else { timers.witness_wait };
    Prediction {
        recovery_time: obstacle.is_none().then_some(Millis(promise.0 + AFTER_THE_PROMISE.0)),
        recovery_point: facts.exposed.map(|exposed| exposed.age),
        exposed_bytes: facts.exposed.map(|exposed| exposed.bytes),
        obstacle,
    }
}

fn obstacle(facts: &Facts) -> Option<String> {
    let said = if facts.standing == Standing::Fenced {
        "this site is fenced: it can't tell what the other one would do, or take over itself"
    } else if !facts.witness_reachable {
        "the witness does not answer: without it the other site can't win a vote; look that it can be reached"
    } else if !facts.peer_connected && facts.standing == Standing::Active {
        "the other site does not answer: it is dead or cut off; bring it back"
    } else if !facts.automatic {
        "failover.mode is Manual: a person promotes the passive site"
    } else if facts.exposed.is_none() {
        "what the passive site lacks is not known now: a promotion would wait for a person"
    } else if facts.exposed.is_some_and(|exposed| exposed.age > facts.max_loss_age) {
        "more is exposed than maxLossOnPromotion allows: a promotion would wait for a person until the sites have caught up"
    } else {
        return None;
    };
    Some(said.to_owned())
}
