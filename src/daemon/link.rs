//! A link with a peer: its streams, and the news that goes over one of them.
//!
//! A thread takes the streams that the other side opens, and gives each a thread of its own: an exchange is served
//! there, news is read and handed to the thread of the peer. All of them end with the link.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::peer::{ToPeer, Trouble};
use super::shared::Shared;
use crate::config::{Name, PeerSettings};
use crate::engine::{EngineError, ExchangeOptions, Folder};
use crate::protocol::link::{LENGTH, News, Opening, payload_len};
use crate::transport::Connection;
use crate::transport::network::Link;
use crate::transport::throttle::Limiter;

/// How many streams of one link may be open at once.
const STREAMS: usize = 32;
/// How long a device may take to answer when it is dialed.
pub(super) const DIAL: Duration = Duration::from_secs(8);
/// How long a stream may take to say what it is for.
const OPENING: Duration = Duration::from_secs(10);

/// How long the first look at a folder, since it was taken up, is waited for.
const TAKING_UP: Duration = Duration::from_secs(10);
const NOT_SHARED: &str = "this device does not share such a folder with yours";
const PAUSED: &str = "it is paused at the other side";

/// What limits sending, and what limits receiving.
pub(super) type Limits = (Vec<Arc<Limiter>>, Vec<Arc<Limiter>>);

type Writer = Arc<Mutex<Option<Box<dyn Write + Send>>>>;

/// A link that is in use.
pub(super) struct Live {
    pub(super) link: Link,
    pub(super) number: u64,
    pub(super) since: Instant,
    /// The address that was remembered last.
    pub(super) remembered: Option<String>,
    folders: Vec<Name>,
    news: Writer,
}

/// What the threads of a link know.
struct Ends {
    shared: Arc<Shared>,
    peer: Name,
    settings: PeerSettings,
    link: Link,
    number: u64,
    limits: Limits,
    news: Writer,
    streams: AtomicUsize,
}

impl Live {
    /// Begins to use a link: takes its streams, and opens the one for news if this side dialed.
    pub(super) fn start(
        shared: &Arc<Shared>,
        peer: &Name,
        settings: &PeerSettings,
        link: Link,
        number: u64,
        limits: Limits,
    ) -> Self {
        let news = Writer::default();
        let ends = Arc::new(Ends {
            shared: Arc::clone(shared),
            peer: peer.clone(),
            settings: settings.clone(),
            link: link.clone(),
            number,
            limits,
            news: Arc::clone(&news),
            streams: AtomicUsize::new(0),
        });
        if link.is_ours() {
            let ends = Arc::clone(&ends);
            super::spawn(&format!("news {peer}"), move || {
                let opened = ends.link.open().map_err(io::Error::other).and_then(|mut connection| {
                    connection.writer.write_all(&Opening::News.encode())?;
                    ends.news(connection)
                });
                if let Err(error) = opened {
                    ends.over(&error.to_string());
                }
            });
        }
        super::spawn(&format!("link {peer}"), move || ends.run());
        Self { link, number, since: shared.instant(), remembered: None, folders: settings.folders.clone(), news }
    }

    /// Tells the other side of the head of a folder.
    pub(super) fn say_head(&self, shared: &Shared, folder: &Name) {
        if self.folders.contains(folder) {
            say(&self.news, &heads(shared, std::slice::from_ref(folder)));
        }
    }

    /// Says where the folders stand, as the last word; the other side closes the link when it has heard it.
    pub(super) fn farewell(self, shared: &Shared) {
        say(&self.news, &heads(shared, &self.folders));
        // Ends the stream.
        drop(self.news.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// The news of the heads of these folders.
fn heads(shared: &Shared, folders: &[Name]) -> Vec<u8> {
    let news = folders.iter().filter_map(|name| {
        let id = shared.folder(name)?.id();
        let (head, by) = shared.head_of(name)?;
        Some(News::Head { folder: id, head, by }.encode())
    });
    news.flatten().collect()
}

/// Writes news, if the stream for it is open. One that fails is told of by the link.
fn say(news: &Writer, bytes: &[u8]) {
    let mut writer = news.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(open) = &mut *writer
        && open.write_all(bytes).and_then(|()| open.flush()).is_err()
    {
        *writer = None;
    }
}

/// What may be done in exchanges of this folder with a peer, and who it must prove to be.
pub(super) fn options(settings: &PeerSettings, folder: &Name) -> ExchangeOptions {
    let direction = settings.direction_of(folder);
    ExchangeOptions {
        send: direction.sends(),
        receive: direction.receives(),
        join: settings.join,
        wait: true,
        device: settings.key().copied(),
        ..ExchangeOptions::default()
    }
}

/// Opens a stream for an exchange of this folder.
pub(super) fn open_exchange(link: &Link, folder: &Folder) -> Result<Connection, EngineError> {
    let mut connection = link.open()?;
    let said = connection.writer.write_all(&Opening::Exchange(folder.id()).encode());
    said.map_err(|error| EngineError::Unreachable { peer: connection.about.clone(), why: error.to_string() })?;
    Ok(connection)
}

fn read_frame(reader: &mut dyn Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; LENGTH];
    match reader.read(&mut length[..1])? {
        0 => return Ok(None),
        _ => reader.read_exact(&mut length[1..])?,
    }
    let len = payload_len(length).map_err(io::Error::other)?;
    let mut payload = vec![0; len];
    reader.read_exact(&mut payload)?;
    Ok(Some(payload))
}

impl Ends {
    /// Takes streams until the link ends.
    fn run(self: Arc<Self>) {
        while let Some(connection) = self.link.accept() {
            if self.streams.fetch_add(1, Ordering::Relaxed) >= STREAMS {
                self.streams.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let ends = Arc::clone(&self);
            super::spawn(&format!("stream {}", self.peer), move || {
                if let Err(error) = ends.stream(connection) {
                    tracing::debug!(peer = %ends.peer, "a stream failed: {}", error.to_string().escape_debug());
                }
                ends.streams.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let why = self.link.wait_closed();
        self.over(&why);
    }

    fn over(&self, why: &str) {
        *self.news.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.link.close(why);
        self.shared.tell_peer(&self.peer, ToPeer::Lost(self.number, why.to_owned()));
    }

    /// One stream that the other side has opened.
    fn stream(&self, mut connection: Connection) -> io::Result<()> {
        let control = Arc::clone(&connection.control);
        let (said, silence) = std::sync::mpsc::channel::<()>();
        super::spawn("opening", move || {
            if silence.recv_timeout(OPENING) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                control.abort();
            }
        });
        let opening = read_frame(&mut connection.reader)?;
        drop(said);
        match Opening::decode(&opening.unwrap_or_default()).map_err(io::Error::other)? {
            Opening::News => self.news(connection).inspect_err(|error| self.over(&error.to_string())),
            Opening::Exchange(folder) => {
                match self.shared.awaited_folder(folder, &self.settings.folders, TAKING_UP) {
                    Some((name, folder)) if self.settings.folders.contains(&name) => {
                        self.serve(&folder, &name, connection);
                    }
                    Some(_) => crate::engine::refuse(connection, NOT_SHARED),
                    None => self.turn_away(connection),
                }
                Ok(())
            }
            Opening::Unknown => Ok(()),
        }
    }

    /// Says news, and hears it until the stream ends.
    fn news(&self, connection: Connection) -> io::Result<()> {
        let Connection { mut reader, mut writer, .. } = connection;
        {
            // Whoever has news meanwhile waits, and says it after this: nothing is told twice or to nobody.
            let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
            let mut first = News::Greeting { instance: self.shared.instance }.encode();
            first.extend(heads(&self.shared, &self.settings.folders));
            writer.write_all(&first)?;
            writer.flush()?;
            *news = Some(writer);
        }
        while let Some(payload) = read_frame(&mut reader)? {
            match News::decode(&payload).map_err(io::Error::other)? {
                News::Greeting { instance } => {
                    self.shared.tell_peer(&self.peer, ToPeer::Greeted(self.number, instance));
                }
                News::Head { folder, head, by } => {
                    self.shared.tell_peer(&self.peer, ToPeer::Theirs(folder, head, by));
                }
                News::Unknown => {}
            }
        }
        Err(io::Error::other("the stream for news has ended"))
    }

    /// None of the folders that can be used is the one that is asked for. It may be one of those that cannot.
    fn turn_away(&self, connection: Connection) {
        let (config, now) = (self.shared.config(), self.shared.now());
        let is_paused = |name: &Name| config.folders.get(name).is_some_and(|own| own.paused.holds(now));
        let mut closed = self.settings.folders.iter().filter(|name| self.shared.folder(name).is_none()).peekable();
        if closed.peek().is_none() {
            crate::engine::refuse(connection, NOT_SHARED);
        } else if closed.all(is_paused) {
            crate::engine::refuse(connection, PAUSED);
        } else {
            crate::engine::put_off(connection, "the folder cannot be used there at the moment");
        }
    }

    /// Serves an exchange that the other side began.
    fn serve(&self, folder: &Folder, name: &Name, connection: Connection) {
        let config = self.shared.config();
        let Some(settings) = config.peers.get(&self.peer) else {
            return crate::engine::refuse(connection, "this device no longer knows yours");
        };
        let now = self.shared.now();
        let paused = settings.paused.holds(now) || config.folders.get(name).is_some_and(|own| own.paused.holds(now));
        if paused {
            return crate::engine::refuse(connection, PAUSED);
        }
        let options = ExchangeOptions { capture: false, device: Some(self.link.device()), ..options(settings, name) };
        let Some(under_way) = self.shared.serves(name, &self.peer, self.link.device()) else {
            return crate::engine::put_off(
                connection,
                "another exchange of this folder goes on with this device, or it is stopping",
            );
        };
        tracing::debug!(folder = %name, peer = %self.peer, "an exchange begins, from the other side");
        self.shared.tell_peer(&self.peer, ToPeer::Serving(name.clone()));
        let (upload, download) = self.limits.clone();
        let served = folder.serve(connection.limited(upload, download), Some(self.peer.as_str()), options);
        let outcome = served.map_err(Trouble::from);
        // Who hears that it has ended may begin the next.
        drop(under_way);
        self.shared.tell_peer(&self.peer, ToPeer::Ended(name.clone(), Box::new(outcome), Vec::new()));
    }
}
