//! The state of the modelled world.

use std::sync::Arc;

use diptych_core::ids::{Epoch, KeeperNumber, SiteName};
use diptych_core::lease::{
    BootTime, CallId, Config, Lease, Message, Mode, Nonce, SiteRecord, Timers, Token, WitnessRecord,
};
use diptych_core::records::Gate;

use super::configurations::Bounds;

/// Each machine's clock stands here; states age instead.
pub(super) const NOW: BootTime = BootTime(1_000);

pub(super) const EAST: usize = 0;

/// What gateways of a site hold; they survive their keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Gateway {
    pub(super) epoch: u64,
    /// In real ticks.
    pub(super) left: u64,
}

/// One site.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Site {
    /// In its catalog.
    pub(super) record: SiteRecord,
    pub(super) keeper: Lease,
    /// A replaced keeper that does not know it yet.
    pub(super) sleeper: Option<Lease>,
    pub(super) gateway: Gateway,
    /// The keeper wants word when its gateways have stopped.
    pub(super) stops: bool,
    /// The keeper wants word when writes in flight have ended.
    pub(super) drains: bool,
    /// Writes that the catalog has, a bit each.
    pub(super) log: u8,
    /// Highest epoch of a commit or an entry here.
    pub(super) log_epoch: u64,
}

/// A swap on its way to the witness, or applied there and not learned of yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Swap {
    pub(super) site: usize,
    pub(super) keeper: KeeperNumber,
    pub(super) call: u64,
    pub(super) stage: Stage,
    pub(super) epoch: u64,
}

/// How far a swap has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Under way; it compares with this token.
    Expects(u64),
    /// Applied under this token; its sender does not know yet.
    Wrote(u64),
}

impl Stage {
    pub(super) const fn expects(self) -> Option<u64> {
        match self {
            Self::Expects(token) => Some(token),
            Self::Wrote(_) => None,
        }
    }

    pub(super) const fn token(&mut self) -> &mut u64 {
        match self {
            Self::Expects(token) | Self::Wrote(token) => token,
        }
    }
}

/// The witness's record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stored {
    pub(super) token: u64,
    pub(super) site: usize,
    pub(super) epoch: u64,
    /// Of the swap that wrote it, while anyone remembers that.
    pub(super) nonce: Option<(KeeperNumber, u64)>,
}

/// A message between the sites; it stays after its delivery, and may never be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) to: usize,
    pub(super) message: Message,
    /// For the choice of which to lose.
    pub(super) age: u64,
}

/// How an epoch was won.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Win {
    pub(super) site: usize,
    /// Its predecessor gave it away.
    pub(super) released: bool,
    /// The winner's log at that moment.
    pub(super) log: u8,
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Receipt {
    None,
    One,
    Both,
}

/// A client's write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) site: usize,
    /// Of the sub-lease under which it began; 0: not begun.
    pub(super) epoch: u64,
    pub(super) committed: bool,
    /// No later epoch had been won at the commit.
    pub(super) in_time: bool,
    /// The peer's catalog took it.
    pub(super) crossed: bool,
    pub(super) receipt: Receipt,
}

/// The whole world, with what only an observer of both sites can know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub(super) sites: [Site; 2],
    pub(super) current: Stored,
    pub(super) previous: Stored,
    /// Ticks until the record is a whole witness lease old.
    pub(super) record_age: u64,
    pub(super) swaps: Vec<Swap>,
    pub(super) flights: Vec<Flight>,
    pub(super) restarts: u8,
    pub(super) wins: Vec<Option<Win>>,
    /// Epochs that were given away.
    pub(super) released: Vec<bool>,
    pub(super) writes: Vec<Write>,
    pub(super) won_twice: bool,
    pub(super) won_out_of_order: bool,
    pub(super) epoch_fell: bool,
    pub(super) one_vote: bool,
}

pub(super) fn name(site: usize) -> SiteName {
    if site == EAST { "east" } else { "west" }.parse().expect("a label")
}

pub(super) fn site_of(name: &SiteName) -> usize {
    usize::from(name.as_str() != "east")
}

pub(super) fn token(number: u64) -> Token {
    Token(number.to_string())
}

pub(super) fn token_number(token: &Token) -> u64 {
    token.0.parse().expect("the model's tokens are numbers")
}

impl Stored {
    pub(super) fn record(&self) -> WitnessRecord {
        let (keeper, number) = self.nonce.unwrap_or_default();
        let nonce = Nonce { seed: self.site as u64, keeper, number };
        WitnessRecord { epoch: Epoch(self.epoch), site: name(self.site), nonce }
    }
}

impl Site {
    pub(super) fn vote(&self) -> (u64, Option<usize>) {
        let backs = self.record.vote.as_ref().and_then(|vote| vote.backs.as_ref());
        (self.record.epoch().0, backs.map(site_of))
    }

    /// Epoch of a gate that lets commits in.
    pub(super) fn open_gate(&self) -> Option<u64> {
        match self.record.gate {
            Gate::Open(epoch) => Some(epoch.0),
            Gate::Closed | Gate::Sealed(_) => None,
        }
    }
}

pub(super) fn config(site: usize, timers: Timers) -> Arc<Config> {
    Arc::new(Config {
        own: name(site),
        peer: Some(name(1 - site)),
        preferred: name(EAST),
        mode: Mode::Automatic,
        timers,
        seed: site as u64,
    })
}

impl World {
    /// East holds epoch 1 by the peer's promise, just given; the witness's record is old.
    pub(super) fn begin(bounds: &Bounds, configs: &[Arc<Config>; 2]) -> Self {
        let site = |own: usize| {
            let gate = if own == EAST { Gate::Open(Epoch(1)) } else { Gate::Closed };
            let record = SiteRecord::empty(KeeperNumber(1)).with(Epoch(1), Some(name(EAST)), gate);
            let keeper = Lease::new(configs[own].clone(), record.clone(), NOW);
            Site {
                record,
                keeper,
                sleeper: None,
                gateway: Gateway::default(),
                stops: false,
                drains: false,
                log: 0,
                log_epoch: 0,
            }
        };
        let stored = Stored { token: 0, site: EAST, epoch: 1, nonce: None };
        let mut wins = vec![None; bounds.epochs as usize + 1];
        wins[1] = Some(Win { site: EAST, released: false, log: 0 });
        let write = Write {
            site: EAST,
            epoch: 0,
            committed: false,
            in_time: false,
            crossed: false,
            receipt: Receipt::None,
        };
        Self {
            sites: [site(0), site(1)],
            current: stored.clone(),
            previous: stored,
            record_age: 0,
            swaps: Vec::new(),
            flights: Vec::new(),
            restarts: 0,
            wins,
            released: vec![false; bounds.epochs as usize + 1],
            writes: vec![write; bounds.writes],
            won_twice: false,
            won_out_of_order: false,
            epoch_fell: false,
            one_vote: false,
        }
    }

    pub(super) fn highest_win(&self) -> u64 {
        self.wins.iter().rposition(Option::is_some).unwrap_or(0) as u64
    }

    pub(super) fn winner(&self, epoch: u64) -> Option<Win> {
        self.wins.get(epoch as usize).copied().flatten()
    }
}

/// Whether the keeper's pending swap is this one.
pub(super) fn awaits(keeper: &Lease, swap: &Swap) -> bool {
    keeper.keeper() == swap.keeper && keeper.pending_swap() == Some(CallId(swap.call))
}
