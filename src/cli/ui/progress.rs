//! Progress bars for long work.
//!
//! The work only counts (atomics, no lock, no waiting); a thread looks at the counts ten times a second and draws a
//! bar for each stage that has been going on for a moment. Short work therefore draws nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::format;
use super::sanitize::sanitize;
use crate::daemon;
use crate::monitor::{Monitor, Stage};

/// For so long a stage goes on without a bar.
const SILENCE: Duration = Duration::from_millis(250);
const TICK: Duration = Duration::from_millis(100);

/// What is known of one stage.
#[derive(Debug, Default)]
struct Counts {
    /// How many began and have not ended.
    running: AtomicU64,
    /// How often it began: a new beginning is a new bar.
    begun: AtomicU64,
    /// What is ahead; 0 where that is not known.
    total: AtomicU64,
    items: AtomicU64,
    bytes: AtomicU64,
}

/// Bars on standard error.
pub(crate) struct Progress {
    counts: Arc<[Counts; 8]>,
    bars: MultiProgress,
    hidden: Arc<AtomicBool>,
    drawer: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Progress {
    /// Bars on the terminal that standard error is.
    pub(crate) fn start() -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(10))
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let counts = Arc::<[Counts; 8]>::default();
        let bars = MultiProgress::with_draw_target(target);
        let hidden = Arc::new(AtomicBool::new(false));
        Self { counts, bars, hidden, drawer: Mutex::default() }
    }

    /// Takes the bars away, so that something else can be written; they come back with the next stage.
    pub(crate) fn clear(&self) {
        self.hidden.store(true, Ordering::Relaxed);
        drop(self.bars.clear());
    }

    /// Shows the work of another process in place of what this one counts.
    pub(crate) fn show(&self, work: &[daemon::Progress]) {
        for stage in Stage::ALL {
            let counts = &self.counts[stage as usize];
            let of_stage = || work.iter().filter(|work| work.stage == stage);
            let running = of_stage().count() as u64;
            if running > 0 && counts.running.load(Ordering::Relaxed) == 0 {
                counts.begun.fetch_add(1, Ordering::Relaxed);
            }
            counts.total.store(of_stage().filter_map(|work| work.total).sum(), Ordering::Relaxed);
            counts.items.store(of_stage().map(|work| work.items).sum(), Ordering::Relaxed);
            counts.bytes.store(of_stage().map(|work| work.bytes).sum(), Ordering::Relaxed);
            counts.running.store(running, Ordering::Relaxed);
        }
        if !work.is_empty() {
            self.draw_from_now_on();
        }
    }

    /// The thread begins with the first stage, so that a command without long work starts none.
    fn draw_from_now_on(&self) {
        self.hidden.store(false, Ordering::Relaxed);
        let mut drawer = self.drawer.lock().unwrap_or_else(PoisonError::into_inner);
        if drawer.is_none() {
            let (stop, stopped) = mpsc::channel();
            let (counts, bars, hidden) = (Arc::clone(&self.counts), self.bars.clone(), Arc::clone(&self.hidden));
            let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
                let mut drawn = Drawn::default();
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
                    if hidden.load(Ordering::Relaxed) {
                        continue;
                    }
                    drawn.look(&counts, &bars, Instant::now());
                }
                drawn.finish();
            });
            // Without a thread to draw them there are no bars; the work goes on.
            *drawer = thread.ok().map(|thread| (stop, thread));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let drawer = self.drawer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, thread)) = drawer {
            drop(stop);
            drop(thread.join());
        }
        drop(self.bars.clear());
    }
}

impl Monitor for Progress {
    fn begin(&self, stage: Stage, total: Option<u64>) {
        let counts = &self.counts[stage as usize];
        if counts.running.fetch_add(1, Ordering::Relaxed) == 0 {
            counts.items.store(0, Ordering::Relaxed);
            counts.bytes.store(0, Ordering::Relaxed);
            counts.total.store(0, Ordering::Relaxed);
            counts.begun.fetch_add(1, Ordering::Relaxed);
        }
        counts.total.fetch_add(total.unwrap_or_default(), Ordering::Relaxed);
        self.draw_from_now_on();
    }

    fn advance(&self, stage: Stage, items: u64, bytes: u64) {
        let counts = &self.counts[stage as usize];
        counts.items.fetch_add(items, Ordering::Relaxed);
        counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn end(&self, stage: Stage) {
        let running = &self.counts[stage as usize].running;
        // An end without a beginning is not worth a panic in a bar.
        running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| running.checked_sub(1)).ok();
    }

    fn notice(&self, text: &str) {
        drop(self.bars.println(format!("note: {}", sanitize(text.as_bytes()))));
    }
}

/// The bars that stand on the terminal.
#[derive(Default)]
struct Drawn {
    stages: [Option<Shown>; 8],
}

struct Shown {
    begun: u64,
    since: Instant,
    bar: Option<ProgressBar>,
}

impl Drawn {
    fn look(&mut self, counts: &[Counts; 8], bars: &MultiProgress, now: Instant) {
        for stage in Stage::ALL {
            let counts = &counts[stage as usize];
            let slot = &mut self.stages[stage as usize];
            let begun = counts.begun.load(Ordering::Relaxed);
            let running = counts.running.load(Ordering::Relaxed) > 0;
            if let Some(old) = slot.take_if(|bar| !running || bar.begun != begun) {
                old.remove(bars);
            }
            if !running {
                continue;
            }
            let seen = slot.get_or_insert(Shown { begun, since: now, bar: None });
            let elapsed = now.duration_since(seen.since);
            if elapsed < SILENCE {
                continue;
            }
            let total = counts.total.load(Ordering::Relaxed);
            let items = counts.items.load(Ordering::Relaxed);
            let bytes = counts.bytes.load(Ordering::Relaxed);
            let bar = seen.bar.get_or_insert_with(|| bars.add(ProgressBar::no_length().with_style(look_of(total > 0))));
            if total > 0 {
                bar.set_length(total.max(items));
            }
            bar.set_prefix(title(stage));
            bar.set_position(items);
            bar.set_message(message(stage, items, bytes, elapsed));
            bar.tick();
        }
    }

    fn finish(&mut self) {
        for bar in self.stages.iter_mut().filter_map(Option::take).filter_map(|bar| bar.bar) {
            bar.finish_and_clear();
        }
    }
}

impl Shown {
    fn remove(self, bars: &MultiProgress) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
            bars.remove(&bar);
        }
    }
}

fn look_of(total_known: bool) -> ProgressStyle {
    let template =
        if total_known { "{prefix:<10} [{bar:24}] {pos}/{len} {msg}" } else { "{prefix:<10} {spinner} {pos} {msg}" };
    ProgressStyle::with_template(template).expect("the template is well formed").progress_chars("=> ")
}

const fn title(stage: Stage) -> &'static str {
    match stage {
        Stage::Scan => "Scanning",
        Stage::Capture => "Capturing",
        Stage::Send => "Sending",
        Stage::Receive => "Receiving",
        Stage::Check => "Checking",
        Stage::Apply => "Writing",
        Stage::Index => "Indexing",
        Stage::Gather => "Gathering",
    }
}

const fn noun(stage: Stage) -> &'static str {
    match stage {
        Stage::Scan | Stage::Capture | Stage::Apply => "files",
        Stage::Send | Stage::Receive | Stage::Index => "revisions",
        Stage::Check | Stage::Gather => "objects",
    }
}

/// What stands behind the count: the noun, the rate, the bytes and their rate.
fn message(stage: Stage, items: u64, bytes: u64, elapsed: Duration) -> String {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = |count: u64| count.saturating_mul(1000) / millis;
    let mut text = format!("{}, {}/s", noun(stage), rate(items));
    if bytes > 0 {
        text.push_str(&format!(", {}, {}/s", format::size(bytes), format::size(rate(bytes))));
    }
    text
}

/// Where no bars can be drawn: notices go to standard error as they are, the rest to nobody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoticesOnly;

impl Monitor for NoticesOnly {
    fn begin(&self, _: Stage, _: Option<u64>) {}
    fn advance(&self, _: Stage, _: u64, _: u64) {}
    fn end(&self, _: Stage) {}

    fn notice(&self, text: &str) {
        use std::io::Write;
        drop(writeln!(std::io::stderr(), "note: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bars on no terminal, which the test looks at in place of the thread.
    fn undrawn() -> (Progress, Drawn, Instant) {
        (Progress::on(ProgressDrawTarget::hidden()), Drawn::default(), Instant::now())
    }

    fn run(progress: &Progress, stage: Stage, total: u64) {
        let counts = &progress.counts[stage as usize];
        counts.running.store(1, Ordering::Relaxed);
        counts.begun.fetch_add(1, Ordering::Relaxed);
        counts.total.store(total, Ordering::Relaxed);
    }

    fn look(progress: &Progress, drawn: &mut Drawn, at: Instant) {
        drawn.look(&progress.counts, &progress.bars, at);
    }

    fn bar(drawn: &Drawn, stage: Stage) -> Option<&ProgressBar> {
        drawn.stages[stage as usize].as_ref()?.bar.as_ref()
    }

    #[test]
    fn a_bar_appears_only_after_a_moment_and_goes_with_its_stage() {
        let (progress, mut drawn, start) = undrawn();
        run(&progress, Stage::Scan, 0);
        progress.advance(Stage::Scan, 500, 0);
        look(&progress, &mut drawn, start);
        look(&progress, &mut drawn, start + SILENCE / 2);
        assert!(bar(&drawn, Stage::Scan).is_none());
        look(&progress, &mut drawn, start + Duration::from_millis(500));
        let shown = bar(&drawn, Stage::Scan).expect("a bar");
        assert_eq!((shown.prefix().as_str(), shown.message().as_str()), ("Scanning", "files, 1000/s"));
        assert_eq!((shown.position(), shown.length()), (500, None));
        progress.end(Stage::Scan);
        look(&progress, &mut drawn, start + Duration::from_secs(1));
        assert!(drawn.stages[Stage::Scan as usize].is_none());
    }

    #[test]
    fn a_known_total_bytes_and_rates_are_shown() {
        let (progress, mut drawn, start) = undrawn();
        run(&progress, Stage::Send, 40);
        progress.advance(Stage::Send, 10, 4096);
        look(&progress, &mut drawn, start);
        look(&progress, &mut drawn, start + Duration::from_secs(2));
        let shown = bar(&drawn, Stage::Send).expect("a bar");
        assert_eq!((shown.position(), shown.length()), (10, Some(40)));
        assert_eq!(shown.message(), "revisions, 5/s, 4.0 KiB, 2.0 KiB/s");
    }

    #[test]
    fn the_work_of_another_process_is_shown_like_our_own() {
        let (progress, mut drawn, start) = undrawn();
        let work = |items| daemon::Progress { stage: Stage::Send, items, total: Some(40), bytes: 0 };
        progress.show(&[work(2), work(3)]);
        look(&progress, &mut drawn, start);
        progress.show(&[work(4), work(5)]);
        look(&progress, &mut drawn, start + SILENCE);
        let shown = bar(&drawn, Stage::Send).expect("a bar");
        assert_eq!((shown.position(), shown.length()), (9, Some(80)));
        progress.show(&[]);
        look(&progress, &mut drawn, start + SILENCE);
        assert!(drawn.stages[Stage::Send as usize].is_none());
    }

    #[test]
    fn a_stage_that_begins_again_begins_with_silence() {
        let (progress, mut drawn, start) = undrawn();
        run(&progress, Stage::Apply, 0);
        look(&progress, &mut drawn, start);
        look(&progress, &mut drawn, start + SILENCE);
        assert!(bar(&drawn, Stage::Apply).is_some());
        run(&progress, Stage::Apply, 0);
        look(&progress, &mut drawn, start + SILENCE * 2);
        assert!(bar(&drawn, Stage::Apply).is_none());
    }

    #[test]
    fn a_stage_that_ends_without_beginning_harms_nothing() {
        let (progress, _, _) = undrawn();
        progress.end(Stage::Check);
        assert_eq!(progress.counts[Stage::Check as usize].running.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_thread_ends_with_the_bars() {
        let (progress, _, _) = undrawn();
        progress.begin(Stage::Scan, Some(3));
        progress.begin(Stage::Scan, Some(4));
        assert_eq!(progress.counts[Stage::Scan as usize].total.load(Ordering::Relaxed), 7);
        progress.end(Stage::Scan);
        progress.notice("said");
        drop(progress);
    }
}
