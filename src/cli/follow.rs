//! Progress bars for what a daemon does: what it says of a folder, handed to the monitor of this command.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ui::Ui;
use crate::daemon::Progress;
use crate::monitor::{Monitor, Stage};

/// The work of a folder as it was last told, on the screen.
pub(crate) struct Follow {
    monitor: Arc<dyn Monitor>,
    shown: BTreeMap<Stage, Progress>,
}

impl Follow {
    /// Shows it where this command shows its own work.
    pub(crate) fn new(ui: &Ui) -> Self {
        Self { monitor: ui.monitor(), shown: BTreeMap::new() }
    }

    /// This is under way now, and nothing else.
    pub(crate) fn show(&mut self, progress: &[Progress]) {
        let monitor = &self.monitor;
        self.shown.retain(|stage, _| {
            let goes_on = progress.iter().any(|now| now.stage == *stage);
            if !goes_on {
                monitor.end(*stage);
            }
            goes_on
        });
        for now in progress {
            let before = match self.shown.get(&now.stage) {
                // Less than before: it has begun anew.
                Some(before) if before.items <= now.items && before.bytes <= now.bytes => (before.items, before.bytes),
                before => {
                    if before.is_some() {
                        monitor.end(now.stage);
                    }
                    monitor.begin(now.stage, now.total);
                    (0, 0)
                }
            };
            monitor.advance(now.stage, now.items - before.0, now.bytes - before.1);
            self.shown.insert(now.stage, now.clone());
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.show(&[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Recording;

    #[test]
    fn what_is_told_is_counted_once() {
        let monitor = Arc::new(Recording::default());
        let mut follow = Follow { monitor: Arc::clone(&monitor) as Arc<dyn Monitor>, shown: BTreeMap::new() };
        let told = |items, bytes| Progress { stage: Stage::Receive, items, total: Some(9), bytes };
        follow.show(&[told(2, 10)]);
        follow.show(&[told(5, 30)]);
        follow.show(&[told(5, 30)]);
        assert_eq!((monitor.items(Stage::Receive), monitor.bytes(Stage::Receive)), (5, 30));
        follow.show(&[told(1, 1)]);
        assert_eq!(monitor.items(Stage::Receive), 6);
        follow.show(&[]);
        assert!(follow.shown.is_empty());
    }
}
