//! Writing our own settings into a NetworkManager profile, with the caller's own privileges.
//!
//! NetworkManager (and polkit behind it) decides whether the caller may. What is changed is decided in
//! `profile`, what else must be sent along so that nothing gets lost in `secrets`.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::Connection;
use zbus::names::{BusName, UniqueName};
use zbus::proxy::{CacheProperties, MethodFlags, Proxy};
use zbus::zvariant::{DynamicType, ObjectPath, OwnedObjectPath, OwnedValue, Type, Value};

use super::profile::{self, OwnedSettings};
use super::{NAME, PROFILE_INTERFACE, secrets};
use crate::sources::Presence;
use crate::sources::call::{Call, Error, LIMIT, owner, within};

/// Profiles are edited by hand: whoever loses this often meets a program that writes all the time.
const ATTEMPTS: usize = 3;

/// `Update2` flag: do not apply changed properties to the running device. With no storage flag beside it, the profile
/// stays where it is (NetworkManager D-Bus API reference, `NMSettingsUpdate2Flags`).
const NO_REAPPLY: u32 = 0x40;

const NO_SECRETS: &str = "org.freedesktop.NetworkManager.AgentManager.NoSecrets";

/// Where a profile is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In a file that outlives a reboot.
    Disk,
    /// In memory or under `/run`: what was set is gone after a reboot.
    Memory,
}

/// Sets (`Some`) or removes (`None`) a profile's own settings `uplinkd.KEY`; keys are given without the prefix.
///
/// Touches nothing else in the profile, keeps its secrets and its place of storage, and does not re-activate it.
/// `org.freedesktop.NetworkManager.Settings.GetConnectionByUuid` and, of `…Settings.Connection`, `GetSettings`,
/// `GetSecrets` and `Update2` (NetworkManager D-Bus API reference).
///
/// # Errors
///
/// NetworkManager does not run, has no such profile, refuses the change (no permission, a malformed key), or others
/// write the profile at the same time again and again. Nothing is written where the secrets cannot be read.
pub async fn set_user_data(
    bus: &Connection,
    uuid: &str,
    changes: &[(String, Option<String>)],
) -> Result<Storage, Error> {
    let profile = within(LIMIT, "GetConnectionByUuid", uuid, Profile::find(bus, uuid)).await?;
    for _ in 0..ATTEMPTS {
        let secrets = profile.secrets().await?;
        // The version after the secrets, because reading them counts as a change; and before the settings, so that a
        // change of theirs between the two reads is noticed when writing.
        let (storage, version) = profile.storage_and_version(bus).await?;
        let mut settings: OwnedSettings = profile.call("GetSettings", &()).await?;
        if !profile::edit(&mut settings, changes) {
            return Ok(storage);
        }
        profile::drop_old_forms(&mut settings);
        secrets.into_iter().for_each(|secrets| secrets::merge(&mut settings, secrets));
        match profile.update(&settings, version).await {
            Err(error) if error.dbus_name().is_some_and(|name| name.ends_with(".VersionIdMismatch")) => {}
            done => return done.map(|()| storage),
        }
    }
    Err(Error::Contended {
        operation: "Update2",
        object: profile.proxy.path().to_string(),
        attempts: ATTEMPTS,
    })
}

/// A profile, asked and written without a time limit: polkit may be asking a person for a password.
struct Profile {
    owner: UniqueName<'static>,
    proxy: Proxy<'static>,
}

impl Profile {
    async fn find(bus: &Connection, uuid: &str) -> Result<Self, Error> {
        let Presence::Present(owner) = owner(bus, NAME).await? else {
            return Err(Error::NotRunning("NetworkManager"));
        };
        let owner = owner.into_inner();
        let call = Call {
            destination: BusName::from(owner.as_ref()),
            path: ObjectPath::from_static_str_unchecked("/org/freedesktop/NetworkManager/Settings"),
            interface: "org.freedesktop.NetworkManager.Settings",
            method: "GetConnectionByUuid",
        };
        let reply = call.send(bus, &uuid).await?;
        let path: OwnedObjectPath = reply.body().deserialize().map_err(|error| call.malformed(error))?;
        let proxy = async {
            let proxy = zbus::proxy::Builder::new(bus).destination(owner.clone())?;
            proxy
                .path(path.into_inner())?
                .interface(PROFILE_INTERFACE)?
                .cache_properties(CacheProperties::No)
                .build()
                .await
        };
        let proxy = proxy.await.map_err(|source| call.failed(source))?;
        Ok(Profile { owner, proxy })
    }

    /// Where it is kept, and (since 1.44) the count of its changes.
    async fn storage_and_version(&self, bus: &Connection) -> Result<(Storage, Option<u64>), Error> {
        let call = Call {
            destination: BusName::from(self.owner.as_ref()),
            path: self.proxy.path().as_ref(),
            interface: "org.freedesktop.DBus.Properties",
            method: "GetAll",
        };
        let reply = call.send(bus, &PROFILE_INTERFACE).await?;
        let properties: HashMap<String, OwnedValue> =
            reply.body().deserialize().map_err(|error| call.malformed(error))?;
        let unsaved = properties.get("Unsaved").is_some_and(|unsaved| **unsaved == Value::from(true));
        let storage = if unsaved { Storage::Memory } else { Storage::Disk };
        Ok((storage, properties.get("VersionId").and_then(|version| u64::try_from(version).ok())))
    }

    async fn secrets(&self) -> Result<Vec<OwnedSettings>, Error> {
        let settings: OwnedSettings = self.call("GetSettings", &()).await?;
        let mut all = Vec::new();
        for setting in secrets::settings_to_ask(&settings) {
            match self.call("GetSecrets", &setting).await {
                Ok(secrets) => all.push(secrets),
                // Has none, or only such as the user's own agent keeps and goes on keeping.
                Err(error) if error.dbus_name() == Some(NO_SECRETS) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn update(&self, settings: &OwnedSettings, version: Option<u64>) -> Result<(), Error> {
        let arguments: HashMap<&str, Value<'_>> =
            version.map(|version| ("version-id", Value::from(version))).into_iter().collect();
        let _: HashMap<String, OwnedValue> = self.call("Update2", &(settings, NO_REAPPLY, arguments)).await?;
        Ok(())
    }

    async fn call<B, R>(&self, operation: &'static str, arguments: &B) -> Result<R, Error>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let interactive = MethodFlags::AllowInteractiveAuth.into();
        let answer = self.proxy.call_with_flags(operation, interactive, arguments).await;
        // `None` is for calls that want no reply; this one does.
        answer.and_then(|answer| answer.ok_or(zbus::Error::InvalidReply)).map_err(|source| Error::Failed {
            operation,
            object: self.proxy.path().to_string(),
            source,
        })
    }
}
