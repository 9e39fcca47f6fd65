//! What a connection can fail with, beyond the errors of reading and writing.
//!
//! Each says what happened in one sentence. What another device said is in it with control characters escaped.

use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use crate::id::DeviceId;

/// What a connection can fail with, beyond the errors of reading and writing.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The program that should be at the other end did not start.
    #[error("could not start `{}`{}", program.display(), if source.kind() == io::ErrorKind::NotFound {
        ": there is no such program (is it installed, and in PATH?)"
    } else {
        ""
    })]
    Start {
        /// The program.
        program: OsString,
        /// Why.
        source: io::Error,
    },
    /// The program at the other end failed.
    #[error("`{}` failed ({status}){}", program.display(), said(stderr))]
    Failed {
        /// The program.
        program: OsString,
        /// How it ended.
        status: ExitStatus,
        /// The last of what it said on its standard error, control characters escaped.
        stderr: String,
    },
    /// The program at the other end did not end after its streams were closed, and was killed.
    #[error("`{}` did not end when it should, and was stopped{}", program.display(), said(stderr))]
    Stuck {
        /// The program.
        program: OsString,
        /// The last of what it said on its standard error, control characters escaped.
        stderr: String,
    },
    /// The operating system would not tell how the program ended.
    #[error("could not wait for `{}`", program.display())]
    Wait {
        /// The program.
        program: OsString,
        /// Why.
        source: io::Error,
    },
    /// This process's own standard input or output cannot be used.
    #[error("could not use the standard input and output")]
    Stdio {
        /// Why.
        source: io::Error,
    },
    /// Another program has the port.
    #[error("UDP port {port} is in use by another program (a second daemon?); `device.port` sets another")]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// The network cannot be used at all.
    #[error("could not open the network: {reason}")]
    Open {
        /// Why, for people.
        reason: String,
    },
    /// A text that is not the address of a relay.
    #[error("`{url}` is not the address of a relay (https://HOST[:PORT])")]
    RelayAddress {
        /// The text.
        url: String,
    },
    /// An id that no device can have.
    #[error("{device} is not the key of a device")]
    NotAKey {
        /// The id.
        device: DeviceId,
    },
    /// A device was asked to connect to itself.
    #[error("that is the key of this device itself (was it copied to another device?)")]
    OwnKey,
    /// The other side does not want this device.
    #[error("{} refused the connection: it does not know this device's key; pair with `share` and `join`", device.short())]
    Refused {
        /// The device that was dialed.
        device: DeviceId,
    },
    /// The other side has more to do than it can.
    #[error("{} has too many connections under way; try again", device.short())]
    Busy {
        /// The device that was dialed.
        device: DeviceId,
    },
    /// Nobody answered.
    #[error("could not reach {} within {:.0} s at {}", device.short(), after.as_secs_f64(), places(tried))]
    Unreachable {
        /// The device that was dialed.
        device: DeviceId,
        /// Where it was looked for.
        tried: Vec<String>,
        /// For how long.
        after: Duration,
    },
    /// It is not known where the device is.
    #[error("no address of {} is known", device.short())]
    NoAddress {
        /// The device that was dialed.
        device: DeviceId,
    },
    /// The only way to the device is a name that does not lead anywhere.
    #[error("could not find the address of `{host}`")]
    Unresolved {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Something answered, but a connection did not come of it.
    #[error("could not connect to {}: {reason}", device.short())]
    Handshake {
        /// The device that was dialed.
        device: DeviceId,
        /// Why, for people.
        reason: String,
    },
    /// The connection is over.
    #[error("the connection with {} is over: {reason}", device.short())]
    Closed {
        /// The device at the other end.
        device: DeviceId,
        /// Why, for people.
        reason: String,
    },
    /// This side has closed its network.
    #[error("the network is closed")]
    Shut,
}

impl TransportError {
    /// Whether the same may well succeed later, with nothing changed on this side.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::Unreachable { .. }
            | Self::NoAddress { .. }
            | Self::Unresolved { .. }
            | Self::Handshake { .. }
            | Self::Closed { .. }
            | Self::Failed { .. }
            | Self::Stuck { .. } => true,
            Self::Start { .. }
            | Self::Wait { .. }
            | Self::Stdio { .. }
            | Self::PortInUse { .. }
            | Self::Open { .. }
            | Self::RelayAddress { .. }
            | Self::NotAKey { .. }
            | Self::OwnKey
            | Self::Refused { .. }
            | Self::Shut => false,
        }
    }
}

/// What a program said, as the end of a sentence.
fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; it said: {stderr}") }
}

/// Where a device was looked for.
fn places(tried: &[String]) -> String {
    if tried.is_empty() { "the addresses that it announces".to_owned() } else { tried.join(", ") }
}
