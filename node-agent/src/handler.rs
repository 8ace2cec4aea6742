//! From frames to the agent's methods: who may, then what.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use diptych_store::Purpose;
use diptych_wire::agent::{
    Abandon, AgentError, Append, Begin, Call, Cross, Delete, Describe, Format, Hello, HelloReply, Inventory,
    Lend, Locate, Op, PlaceRows, PutKeyring, Raise, Read, Rebuild, Scrub, Seal, Verify,
};
use diptych_wire::identity::Role;
use diptych_wire::server::{Answer, Counters, Handler, Peer, Request, Transport};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::authorize::authorize;

/// The agent behind a server.
pub(crate) struct AgentHandler {
    pub(crate) agent: Arc<Agent>,
    /// Of the server in front, once it is made.
    pub(crate) counters: OnceLock<Arc<Counters>>,
    pub(crate) stop: CancellationToken,
}

#[async_trait]
impl Handler for AgentHandler {
    async fn greet(&self, peer: &Peer, hello: &Hello) -> Result<HelloReply, AgentError> {
        authorize(&self.agent.identity, &peer.identity, Op::Hello)?;
        if let Some(expected) = hello.expects.as_ref().filter(|expected| **expected != self.agent.node) {
            let reason = format!("this is the agent of node {}, not of {expected}", self.agent.node);
            return Err(AgentError::Invalid { reason });
        }
        Ok(self.agent.hello().await)
    }

    async fn handle(&self, peer: &Peer, request: Request) -> Answer {
        let started = Instant::now();
        let op = request.op;
        self.agent.metrics.moved("in", request.payload.len());
        let (answer, error) = match authorize(&self.agent.identity, &peer.identity, op) {
            Ok(()) => self.dispatch(peer, request).await,
            Err(error) => {
                tracing::warn!(peer = %peer.identity, op = op.name(), %error, "denied");
                refusal(error)
            }
        };
        self.agent.metrics.answered(op, error.as_ref(), started.elapsed());
        answer
    }
}

type Answered = (Answer, Option<AgentError>);

fn refusal(error: AgentError) -> Answered {
    (Answer::of::<()>(&Err(error.clone()), Vec::new()), Some(error))
}

/// Decodes, runs, encodes.
async fn reply<C: Call, F: Future<Output = Result<C::Reply, AgentError>>>(
    request: &Request,
    run: impl FnOnce(C) -> F,
) -> Answered {
    let result = match request.decode::<C>() {
        Ok(message) => run(message).await,
        Err(error) => Err(error),
    };
    (Answer::of(&result, Vec::new()), result.err())
}

impl AgentHandler {
    async fn dispatch(&self, peer: &Peer, request: Request) -> Answered {
        let (agent, who, payload) = (&self.agent, &peer.identity, request.payload.clone());
        // Only clients' bytes stop at the first limit of room; what repairs goes on.
        let purpose = if who.role == Role::Gateway { Purpose::Client } else { Purpose::Repair };
        match request.op {
            Op::Hello => refusal(AgentError::Invalid { reason: "greeted already".to_owned() }),
            Op::Ping => (Answer::of(&Ok(()), Vec::new()), None),
            Op::Raise => reply(&request, |m: Raise| agent.raise(m.stamp)).await,
            Op::PlaceRows => reply(&request, |m: PlaceRows| agent.place_rows(m, payload, purpose)).await,
            Op::Begin => reply(&request, |m: Begin| agent.begin(who, m, purpose)).await,
            Op::Append => reply(&request, |m: Append| agent.append(who, m, payload)).await,
            Op::Seal => reply(&request, |m: Seal| agent.seal(who, m)).await,
            Op::Abandon => reply(&request, |m: Abandon| agent.abandon(who, m.stream)).await,
            Op::Read => self.read(&request).await,
            Op::Describe => reply(&request, |m: Describe| agent.describe(m)).await,
            Op::Verify => reply(&request, |m: Verify| agent.verify(m)).await,
            Op::Locate => reply(&request, |m: Locate| agent.locate(m)).await,
            Op::Lend => self.lend(peer, &request).await,
            Op::Delete => reply(&request, |m: Delete| agent.delete(m)).await,
            Op::Inventory => reply(&request, |m: Inventory| agent.inventory(m)).await,
            Op::Status => (Answer::of(&Ok(agent.status().await), Vec::new()), None),
            Op::Scrub => reply(&request, |m: Scrub| agent.scrub(m, &self.stop)).await,
            Op::Rebuild => reply(&request, |m: Rebuild| agent.rebuild(m)).await,
            Op::Cross => reply(&request, |m: Cross| agent.cross(m)).await,
            Op::PutKeyring => reply(&request, |m: PutKeyring| agent.put_keyring(m)).await,
            Op::GetKeyring => (Answer::of(&agent.read_keyrings().await, Vec::new()), None),
            Op::Format => reply(&request, |m: Format| agent.format(m)).await,
            Op::Metrics => {
                let text = agent.metrics_text(self.counters.get().map(|counters| &**counters)).await;
                (Answer::of(&Ok(text), Vec::new()), None)
            }
        }
    }

    async fn lend(&self, peer: &Peer, request: &Request) -> Answered {
        let Transport::Unix { .. } = peer.transport else {
            let reason = "files are lent over the unix socket only".to_owned();
            return refusal(AgentError::Invalid { reason });
        };
        let lent = match request.decode::<Lend>() {
            Ok(message) => self.agent.lend(message).await,
            Err(error) => Err(error),
        };
        match lent {
            Ok(descriptor) => (Answer::of(&Ok(()), Vec::new()).lending(descriptor), None),
            Err(error) => refusal(error),
        }
    }

    async fn read(&self, request: &Request) -> Answered {
        let read = match request.decode::<Read>() {
            Ok(message) => self.agent.read(message).await,
            Err(error) => Err(error),
        };
        let (items, room) = match read {
            Ok(read) => read,
            Err(error) => return refusal(error),
        };
        let lengths: Result<Vec<Result<u32, AgentError>>, AgentError> = Ok(items
            .iter()
            .map(|item| item.as_ref().map(|bytes| bytes.len() as u32).map_err(Clone::clone))
            .collect());
        let error = items.iter().find_map(|item| item.as_ref().err().cloned());
        let payload: Vec<Bytes> = items.into_iter().flatten().collect();
        self.agent.metrics.moved("out", payload.iter().map(Bytes::len).sum());
        (Answer::of(&lengths, payload).holding(Some(room)), error)
    }
}
