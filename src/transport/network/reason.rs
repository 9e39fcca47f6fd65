//! Why connections end: the codes that go over the wire, and the words for people.
//!
//! The codes never change their meaning: other versions send them.

use std::io;

use iroh::endpoint::{ConnectError, ConnectWithOptsError, ConnectingError, ConnectionError, TransportErrorCode};

use crate::id::DeviceId;
use crate::transport::TransportError;

/// Closed because whoever closed it wanted to; the reason is in words.
pub(super) const DONE: u32 = 0;
/// A stream that was broken off.
pub(super) const BROKEN_OFF: u32 = 1;
/// Closed because the key is not known, or no longer.
pub(super) const REFUSED: u32 = 403;
/// Closed because nothing was said in time.
pub(super) const TOO_SLOW: u32 = 408;
/// Closed because there are too many already.
pub(super) const BUSY: u32 = 503;

/// How much of the other side's reason is shown.
const REASON_SHOWN: usize = 200;

/// TLS alerts, as QUIC carries them: nothing in common to speak.
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// The reason that the other side gave, for people.
fn said(reason: &[u8]) -> String {
    let text = String::from_utf8_lossy(&reason[..reason.len().min(REASON_SHOWN)]);
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

fn code_of(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

/// Why a connection ended, for people. `shut`: this side has closed its network, and with it what was left open.
pub(super) fn text(error: &ConnectionError, shut: bool) -> String {
    match error {
        ConnectionError::TransportError(_) if shut => text(&ConnectionError::LocallyClosed, shut),
        ConnectionError::TimedOut => "the other side has fallen silent".to_owned(),
        ConnectionError::LocallyClosed => "this side closed it".to_owned(),
        ConnectionError::Reset => "the other side has started anew".to_owned(),
        ConnectionError::ApplicationClosed(close) => match u32::try_from(close.error_code.into_inner()) {
            Ok(REFUSED) => "the other side does not know this device's key".to_owned(),
            Ok(BUSY) => "the other side has too many connections".to_owned(),
            Ok(TOO_SLOW) => "the other side waited too long for this one".to_owned(),
            _ if close.reason.is_empty() => "the other side closed it".to_owned(),
            _ => format!("the other side closed it: {}", said(&close.reason)),
        },
        other => said(other.to_string().as_bytes()),
    }
}

/// The end of a connection, as the error of a read or a write.
pub(super) fn lost(error: &ConnectionError, shut: bool) -> io::Error {
    let kind = match error {
        ConnectionError::TransportError(_) if shut => io::ErrorKind::ConnectionAborted,
        ConnectionError::TimedOut => io::ErrorKind::TimedOut,
        ConnectionError::LocallyClosed => io::ErrorKind::ConnectionAborted,
        error if code_of(error) == Some(REFUSED.into()) => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, text(error, shut))
}

/// Why dialing failed. None: nobody answered.
pub(super) fn dialing(device: DeviceId, error: &ConnectError) -> Option<TransportError> {
    let handshake = || TransportError::Handshake { device, reason: said(error.to_string().as_bytes()) };
    Some(match error {
        ConnectError::Connect { source, .. } => match source {
            ConnectWithOptsError::SelfConnect { .. } => TransportError::OwnKey,
            ConnectWithOptsError::NoAddress { .. } => TransportError::NoAddress { device },
            ConnectWithOptsError::EndpointClosed { .. } => TransportError::Shut,
            _ => handshake(),
        },
        ConnectError::Connecting { source: ConnectingError::ConnectionError { source, .. }, .. }
        | ConnectError::Connection { source, .. } => return dialed(device, source),
        _ => handshake(),
    })
}

/// Why a connection that was dialed did not become a link. None: nobody answered.
pub(super) fn dialed(device: DeviceId, error: &ConnectionError) -> Option<TransportError> {
    if matches!(error, ConnectionError::TimedOut) {
        return None;
    }
    let code = match error {
        ConnectionError::TransportError(error) => Some(error.code),
        ConnectionError::ConnectionClosed(close) => Some(close.error_code),
        _ => None,
    };
    Some(if code_of(error) == Some(REFUSED.into()) {
        TransportError::Refused { device }
    } else if code_of(error) == Some(BUSY.into()) || code == Some(TransportErrorCode::CONNECTION_REFUSED) {
        TransportError::Busy { device }
    } else if matches!(error, ConnectionError::LocallyClosed) {
        TransportError::Shut
    } else {
        let reason = if code == Some(TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL)) {
            "it does not speak this version of foldersync".to_owned()
        } else {
            text(error, false)
        };
        TransportError::Handshake { device, reason }
    })
}
