//! What systemd is told of the process (`sd_notify`), and how often it wants a sign of life.
//!
//! Nothing happens where no systemd asks for it. That it cannot be told is no reason to stop: it will notice.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

/// It has begun its work, or has read its configuration again.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It reads its configuration again; [`ready`] has to follow.
pub fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    tell(&[NotifyState::Reloading].into_iter().chain(now).collect::<Vec<_>>());
}

/// It is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// How it does, in a line that `systemctl status` shows.
pub fn status(text: &str) {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    tell(&[NotifyState::Status(&line)]);
}

/// A sign of life.
pub fn watchdog() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`watchdog`] has to be called, if at all: twice in the time after which systemd gives up.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|time| !time.is_zero()).map(|time| time / 2)
}

fn tell(state: &[NotifyState<'_>]) {
    let told: io::Result<()> = sd_notify::notify(state);
    if let Err(error) = told {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
