//! The right to write: who has it, until when, and how it passes from site to site. docs/lease.md is the protocol; this
//! is all of it that decides anything, as a pure state machine. The keeper of a site, the model checker and the
//! simulation drive the same `Lease::step`.
//!
//! A site writes under an epoch only with two of three votes for it: its own, and the peer's (a timed promise) or the
//! witness's (a record changed by compare-and-set). A step never asks for a swap together with the vote that it rests on,
//! nor serves together with the opening of the gate: each waits until the other was observed as durable.
//!
//! ```text
//!                          ┌───────────────┐  peer's vote, or a person   ┌───────────────┐
//!       no record ────────►│   NoRecord    │────────────────────────────►│   Follower    │◄──────────────────────┐
//!                          └──────┬────────┘                             │ vote: peer    │                       │
//!           first start,          │                                      │ gate: closed  │                       │
//!           preferred             │                                      └──┬─────────┬──┘                       │
//!                                 ▼      promise over, loss gate allows,    │         │ Release {e+1, c}:        │
//!                          ┌───────────────┐◄───────────────────────────────┘         │ vote := (e+1, self)      │
//!            ┌────────────►│   Candidate   │  vote := (e, self), then swap,           │                          │
//!            │             │ vote: self    │  or ask the peer                         │                          │
//!            │             │ gate: not at  │◄─────────────────────────────────────────┘                          │
//!            │             │   the vote    │──── grants the peer's higher epoch ────────────────────────────────►│
//!            │             └──────┬────────┘                                                                     │
//!            │                    │ second vote counted: gate := open at e (the win), observed ► Serve           │
//!            │                    ▼                                                                              │
//!            │             ┌───────────────┐  Ack or swap ► deadline := send + hold                              │
//!  the peer  └─────────────│    Holder     │◄──┐ (again and again)                                               │
//!  refused, or a higher    │ vote: self    │───┘                                                                 │
//!  record, once lapsed:    │ gate: open    │──── Handover: drain ► Sealed ► peer has all ► gateways stopped ────►│
//!  vote := (max + 1, self) └──────┬────────┘               vote := (e+1, peer), gate := closed ► Release         │
//!                                 │ deadline passed ▲                                                            │
//!                                 ▼                 │ Ack or swap for the same epoch: nobody can have won        │
//!                          ┌───────────────┐────────┘                                                            │
//!                          │    Lapsed     │  own lease over by a voter's count: grants the peer's higher epoch, │
//!                          └───────────────┘  or an entry under it came ────────────────────────────────────────►┘
//! ```

mod challenge;
mod event;
mod guard;
mod handover;
mod machine;
mod message;
mod peer;
mod persist;
mod record;
mod start;
mod state;
mod sublease;
mod timers;
mod turn;
mod witness;

#[cfg(any(test, feature = "mutations"))]
mod canonical;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "mutations"))]
pub use canonical::Labels;
pub use event::{
    CallId, Command, Effect, Event, LossDecision, NoPromotion, Persisted, SwapResult, Waiting, WitnessRead,
};
pub use guard::Guard;
pub use machine::{Config, Lease, Mode, Role, Status};
pub use message::{Message, Nonce, Seq, Standing, WitnessRecord, Wrote};
pub use record::{Admission, SiteRecord, Token};
pub use sublease::{Borrowed, Loan, SubLease};
pub use timers::{BootTime, Millis, Timers};
