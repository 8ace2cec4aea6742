//! Commands to the agent as a whole: the epoch, keyrings, new devices.

use diptych_core::ids::Stamp;
use diptych_store::Keyring;
use diptych_wire::agent::{AgentError, DeviceKeyring, Format, PutKeyring, SealedKeyring};

use crate::agent::Agent;
use crate::rows::invalid;

impl Agent {
    /// FENCING: the stamp is durable on every device in use before the agent takes a command under it, so that a
    /// restart forgets no epoch. A device that is not in use admits it before it is used again.
    pub(crate) async fn raise(&self, stamp: Stamp) -> Result<(), AgentError> {
        self.fence.not_stale(stamp)?;
        // In memory first: from here on nothing lower passes, also on a device whose own answer still comes.
        self.fence.remember(stamp);
        for (slot, _) in self.devices.open() {
            match slot.with(move |device| device.admit(stamp)).await {
                Ok(()) => {}
                Err(error @ AgentError::StaleStamp { .. }) => return Err(error),
                Err(error) => {
                    tracing::error!(path = %slot.path().display(), %error, "a device takes no stamp");
                }
            }
        }
        if !self.fence.is_ready() {
            tracing::info!(%stamp, "epoch heard: commands are taken from now on");
        }
        self.fence.set_ready();
        Ok(())
    }

    /// On every device in use; the others get it when they are back.
    pub(crate) async fn put_keyring(&self, command: PutKeyring) -> Result<(), AgentError> {
        self.fence.pass(command.stamp, None)?;
        let SealedKeyring { generation, sealed } = command.keyring;
        let open = self.devices.open();
        if open.is_empty() {
            return Err(AgentError::Internal {
                reason: "no device is in use, so the keyring is kept nowhere".to_owned(),
            });
        }
        for (slot, _) in open {
            let keyring = Keyring { number: generation, bytes: sealed.clone() };
            slot.with(move |device| device.put_keyring(keyring)).await?;
        }
        Ok(())
    }

    /// The newest on any device in use.
    pub(crate) fn keyring(&self) -> Option<SealedKeyring> {
        let keyrings = self.devices.open().into_iter().filter_map(|(_, device)| device.keyring());
        let newest = keyrings.max_by_key(|keyring| keyring.number)?;
        Some(SealedKeyring { generation: newest.number, sealed: newest.bytes })
    }

    /// Of each device in use, as it lies on the device.
    pub(crate) async fn read_keyrings(&self) -> Result<Vec<DeviceKeyring>, AgentError> {
        let mut kept = Vec::new();
        for (slot, device) in self.devices.open() {
            let read = slot.with(diptych_store::Device::read_keyring).await?;
            let keyring = read.map(|kept| SealedKeyring { generation: kept.number, sealed: kept.bytes });
            kept.push(DeviceKeyring { device: device.identity().device, keyring });
        }
        Ok(kept)
    }

    /// Makes an empty folder that the agent was given a device, and takes it into use.
    pub(crate) async fn format(&self, command: Format) -> Result<(), AgentError> {
        self.fence.pass(command.stamp, None)?;
        let Format { path, device, .. } = command;
        let mut slots = self.devices.slots().iter();
        let slot = slots.find(|slot| slot.path() == path).cloned();
        let slot =
            slot.ok_or_else(|| invalid(format!("{} is no path that this agent was given", path.display())))?;
        if let Some(other) = self.devices.slots().iter().find(|other| other.id() == Some(device))
            && other.path() != path
        {
            return Err(invalid(format!("device {device} is at {} already", other.path().display())));
        }
        let made = slot.clone();
        let formatted = tokio::task::spawn_blocking(move || made.format(device)).await;
        formatted.map_err(|error| AgentError::Internal { reason: error.to_string() })??;
        self.look_at(&slot).await;
        slot.device().map(drop)
    }
}
