//! The signals that a long-running command heeds.
//!
//! They arrive on a thread of their own. The first that asks to stop is handed on; a second one ends the process at
//! once, as it would without us: whoever insists is obeyed, and everything on disk can bear it.

use std::io;
use std::thread::{self, JoinHandle};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Incoming};
use signal_hook::low_level::emulate_default_handler;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To stop (`SIGINT`, `SIGTERM`).
    Stop,
    /// To read the configuration again (`SIGHUP`).
    Reload,
}

/// Signals are heeded for as long as it lives.
#[derive(Debug)]
pub struct Signals {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Signals {
    /// Calls `heard` for each signal, on a thread of its own; it must not wait.
    pub fn listen(mut heard: impl FnMut(Signal) + Send + 'static) -> io::Result<Self> {
        let mut incoming = Incoming::new([SIGHUP, SIGINT, SIGTERM])?;
        let handle = incoming.handle();
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut stopping = false;
            for signal in incoming.forever() {
                if signal == SIGHUP {
                    heard(Signal::Reload);
                } else if stopping {
                    // It does not come back, or there is no such signal.
                    drop(emulate_default_handler(signal));
                } else {
                    stopping = true;
                    heard(Signal::Stop);
                }
            }
        })?;
        Ok(Self { handle, thread: Some(thread) })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
