//! One QUIC stream as a blocking [`Connection`].
//!
//! Nothing is buffered here beyond QUIC's own windows. A thread that waits in a read or a write holds that direction's
//! lock; breaking off wakes it first, and takes the lock after.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iroh::endpoint::{Connection as Quic, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::watch;

use super::reactor::Reactor;
use super::reason::{self, BROKEN_OFF};
use crate::transport::{Connection, Control, TransportError};

/// How long a finished stream keeps its connection for the other side to take the last of it.
const LINGER: Duration = Duration::from_secs(10);

/// The two directions, and what breaks them off.
struct Stream {
    reactor: Reactor,
    quic: Quic,
    receive: Mutex<Option<RecvStream>>,
    send: Mutex<Option<SendStream>>,
    cut: watch::Sender<bool>,
}

fn lock<T>(side: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    side.lock().unwrap_or_else(PoisonError::into_inner)
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was broken off")
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the stream is over")
}

/// A connection over a stream of `quic`, which stays open at least until what was written has arrived.
pub(super) fn connection(
    reactor: &Reactor,
    quic: &Quic,
    (send, receive): (SendStream, RecvStream),
    about: &str,
) -> Connection {
    let stream = Arc::new(Stream {
        reactor: reactor.clone(),
        quic: quic.clone(),
        receive: Mutex::new(Some(receive)),
        send: Mutex::new(Some(send)),
        cut: watch::Sender::new(false),
    });
    Connection {
        reader: Box::new(Reading(Arc::clone(&stream))),
        writer: Box::new(Writing(Arc::clone(&stream))),
        about: about.to_owned(),
        control: Arc::new(StreamControl(stream)),
    }
}

impl Stream {
    /// Waits for what is read or written, or for the end of it.
    fn wait<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut cut = self.cut.subscribe();
        self.reactor.block_on(async {
            tokio::select! {
                biased;
                _ = cut.wait_for(|cut| *cut) => Err(aborted()),
                done = work => done,
            }
        })
    }
}

struct Reading(Arc<Stream>);

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut receive = lock(&self.0.receive);
        let receive = receive.as_mut().ok_or_else(aborted)?;
        let read = self
            .0
            .wait(async { receive.read(buffer).await.map_err(|error| read_error(error, self.0.reactor.is_shut())) })?;
        Ok(read.unwrap_or(0))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Tells the other side to stop, unless all of it was read.
        drop(lock(&self.0.receive).take());
    }
}

struct Writing(Arc<Stream>);

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut send = lock(&self.0.send);
        let send = send.as_mut().ok_or_else(aborted)?;
        self.0.wait(async { send.write(bytes).await.map_err(|error| write_error(error, self.0.reactor.is_shut())) })
    }

    fn flush(&mut self) -> io::Result<()> {
        // What is written is sent as soon as it may be.
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let Some(mut send) = lock(&self.0.send).take() else { return };
        // It fails when the other side has stopped it, who then waits for nothing.
        if send.finish().is_ok() {
            let (arrived, quic) = (send.stopped(), self.0.quic.clone());
            self.0.reactor.linger(async move {
                // Acknowledged, stopped, lost, or too late: there is no more to do in any case.
                drop(tokio::time::timeout(LINGER, arrived).await);
                drop(quic);
            });
        }
    }
}

struct StreamControl(Arc<Stream>);

impl Control for StreamControl {
    fn abort(&self) {
        let stream = &self.0;
        stream.cut.send_replace(true);
        // They fail for what is over already, and that is as well.
        if let Some(mut send) = lock(&stream.send).take() {
            drop(send.reset(VarInt::from_u32(BROKEN_OFF)));
        }
        if let Some(mut receive) = lock(&stream.receive).take() {
            drop(receive.stop(VarInt::from_u32(BROKEN_OFF)));
        }
    }

    fn finish(&self) -> Result<(), TransportError> {
        Ok(())
    }
}

fn read_error(error: ReadError, shut: bool) -> io::Error {
    match error {
        ReadError::Reset(_) => io::Error::new(io::ErrorKind::ConnectionReset, "the other side broke the stream off"),
        ReadError::ConnectionLost(lost) => reason::lost(&lost, shut),
        ReadError::ClosedStream | ReadError::ZeroRttRejected => over(),
    }
}

fn write_error(error: WriteError, shut: bool) -> io::Error {
    match error {
        WriteError::Stopped(_) => io::Error::new(io::ErrorKind::BrokenPipe, "the other side has closed the connection"),
        WriteError::ConnectionLost(lost) => reason::lost(&lost, shut),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => over(),
    }
}
