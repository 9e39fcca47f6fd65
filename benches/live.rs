//! The daemon's figures: how soon an edit is on the other side, what daemons cost that have nothing to do, and how
//! fast a link carries.
//!
//! `cargo bench --bench live` runs real daemons (the release binary, loopback QUIC) on data that it makes in
//! `$BENCH_DIR` (default: the temporary folder). `cargo bench --bench live -- NAME` runs the benchmarks whose name
//! contains NAME. The time of an edit is from the return of the write (the file is closed) until its bytes are in the
//! file of the other side, looked for every millisecond.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints figures")]

use std::fs;
use std::io::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use foldersync::config::Home;
use foldersync::daemon::DaemonStatus;
use foldersync::daemon::control::{Answer, Ask, Client};

const EDITS: usize = 200;
const LIMIT: Duration = Duration::from_mins(2);

/// One device: a home, a folder, and a daemon that runs.
struct Device {
    home: PathBuf,
    folder: PathBuf,
    port: u16,
    key: String,
    daemon: Option<Child>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Device {
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foldersync"));
        command.env("FOLDERSYNC_HOME", &self.home).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn new(dir: &Path, name: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut device = Self {
            home: dir.join(format!("home-{name}")),
            folder: dir.join(name),
            port,
            key: String::new(),
            daemon: None,
        };
        let told = device.command().args(["id", "--json"]).stdout(Stdio::piped()).output().unwrap().stdout;
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        told["device"].as_str().unwrap().clone_into(&mut device.key);
        device
    }

    /// Writes the configuration: everybody knows everybody.
    fn know(&self, others: &[&Device]) {
        let mut text = format!(
            "[device]\nport = {}\nlocal_discovery = false\n[folder.data]\npath = \"{}\"\n",
            self.port,
            self.folder.display()
        );
        for other in others {
            let name = other.folder.file_name().unwrap().to_string_lossy();
            let Device { key, port, .. } = other;
            text +=
                &format!("[peer.{name}]\naddress = \"foldersync://{key}@127.0.0.1:{port}\"\nfolders = [\"data\"]\n");
        }
        fs::write(self.home.join("config.toml"), text).unwrap();
    }

    fn start(&mut self) {
        self.daemon = Some(self.command().args(["serve", "--loopback"]).spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    fn status(&self) -> Option<DaemonStatus> {
        let mut client = Client::ask(&Home::at(self.home.clone()), &Ask::Status).ok()??;
        match client.next().ok()? {
            Answer::Progress(status) => Some(*status),
            _ => None,
        }
    }

    fn wait_in_step(&self) {
        let began = Instant::now();
        let in_step = |status: DaemonStatus| {
            let mut pairs = status.peers.values().flat_map(|peer| peer.folders.values()).peekable();
            pairs.peek().is_some() && pairs.all(|pair| pair.in_step && !pair.exchanging)
        };
        while !self.status().is_some_and(in_step) {
            assert!(began.elapsed() < LIMIT, "not in step: {:?}", self.status());
            sleep(Duration::from_millis(20));
        }
    }

    /// Seconds of processor time that the daemon has used.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon.as_ref().unwrap().id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    }

    /// Resident and peak resident memory, in MiB.
    fn memory(&self) -> (f64, f64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.as_ref().unwrap().id())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
        };
        (of("VmRSS:"), of("VmHWM:"))
    }
}

/// Devices with the same folder, whose daemons run and are in step.
fn devices(dir: &Path, names: &[&str], fill: &dyn Fn(&Path)) -> Vec<Device> {
    drop(fs::remove_dir_all(dir));
    fs::create_dir_all(dir).unwrap();
    let mut devices: Vec<Device> = names.iter().map(|name| Device::new(dir, name)).collect();
    fs::create_dir(&devices[0].folder).unwrap();
    fill(&devices[0].folder);
    let done = |command: &mut Command| assert!(command.status().unwrap().success());
    done(devices[0].command().arg("init").arg(&devices[0].folder));
    for device in &devices[1..] {
        done(device.command().arg("clone").arg(&devices[0].folder).arg(&device.folder));
    }
    for at in 0..devices.len() {
        let others: Vec<&Device> = devices.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, d)| d).collect();
        devices[at].know(&others);
    }
    devices.iter_mut().for_each(Device::start);
    devices.iter().for_each(Device::wait_in_step);
    devices
}

fn small_files(count: usize) -> impl Fn(&Path) {
    move |root| {
        for n in 0..count {
            let folder = root.join(format!("d{:03}", n / 100));
            if n % 100 == 0 {
                fs::create_dir(&folder).unwrap();
            }
            fs::write(folder.join(format!("f{n}.txt")), format!("{n}: some words\n").repeat(60)).unwrap();
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Edits on the first device until they are on the others; the median and the 99th of all.
fn edits(dir: &Path, names: &[&str]) -> String {
    let devices = devices(dir, names, &small_files(20_000));
    sleep(Duration::from_secs(2));
    let mut times = Vec::new();
    for n in 0..EDITS {
        let name = format!("d{:03}/f{}.txt", (n * 37) % 200, (n * 37) % 200 * 100 + n % 100);
        let text = format!("edit {n}\n").repeat(50);
        fs::write(devices[0].folder.join(&name), &text).unwrap();
        let written = Instant::now();
        while devices[1..]
            .iter()
            .any(|device| fs::read(device.folder.join(&name)).ok().as_deref() != Some(text.as_bytes()))
        {
            assert!(written.elapsed() < LIMIT, "{name} does not arrive");
            sleep(Duration::from_millis(1));
        }
        times.push(milliseconds(written.elapsed()));
        // Edits that do not follow a beat.
        sleep(Duration::from_millis(100 + (n as u64 * 7919) % 200));
    }
    times.sort_by(f64::total_cmp);
    format!("{:.0} ms / {:.0} ms", times[EDITS / 2], times[EDITS * 99 / 100])
}

fn idle(dir: &Path) -> String {
    let devices = devices(dir, &["a", "b"], &small_files(20_000));
    sleep(Duration::from_secs(5));
    let before: f64 = devices.iter().map(Device::cpu).sum();
    sleep(Duration::from_secs(30));
    let after: f64 = devices.iter().map(Device::cpu).sum();
    format!("{:.2} s", after - before)
}

fn memory(dir: &Path) -> String {
    let devices = devices(dir, &["a", "b"], &small_files(100_000));
    sleep(Duration::from_secs(2));
    fs::write(devices[0].folder.join("one.txt"), "one").unwrap();
    let arrived = devices[1].folder.join("one.txt");
    while !arrived.exists() {
        sleep(Duration::from_millis(5));
    }
    let told: Vec<String> =
        devices.iter().map(Device::memory).map(|(now, peak)| format!("{now:.0} MiB (peak {peak:.0})")).collect();
    told.join(", ")
}

/// How much is sent at once, and in how many files.
const GIB: u64 = 1 << 30;
const FILES: usize = 512;

/// Files that do not compress, 1 GiB of them, beside the devices' folders, to be moved into one.
fn incompressible(dir: &Path) -> PathBuf {
    let mut random = fs::File::open("/dev/urandom").unwrap();
    let staging = dir.join("staging");
    fs::create_dir(&staging).unwrap();
    for n in 0..FILES {
        let mut file = fs::File::create(staging.join(format!("{n}"))).unwrap();
        std::io::copy(&mut std::io::Read::take(&mut random, GIB / FILES as u64), &mut file).unwrap();
        file.flush().unwrap();
    }
    staging
}

/// Bytes that have gone over the loopback device since the computer started.
fn on_loopback() -> u64 {
    let told = fs::read_to_string("/proc/net/dev").unwrap();
    let line = told.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// The same, by a bare stream of the same QUIC between two endpoints of one process, from memory to memory, or to a file
/// that is synced at the end.
fn bare_stream(to_file: Option<&Path>) -> f64 {
    use iroh::endpoint::presets::Minimal;
    use iroh::{Endpoint, EndpointAddr, RelayMode};
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bind = || async {
            let builder = Endpoint::builder(Minimal).alpns(vec![b"bare".to_vec()]).relay_mode(RelayMode::Disabled);
            builder.clear_ip_transports().bind_addr("127.0.0.1:0").unwrap().bind().await.unwrap()
        };
        let (from, to) = (bind().await, bind().await);
        let target = to.bound_sockets().into_iter().fold(EndpointAddr::new(to.id()), EndpointAddr::with_ip_addr);
        let mut file = to_file.map(|path| fs::File::create(path).unwrap());
        let receiving = tokio::spawn(async move {
            let connection = to.accept().await.unwrap().await.unwrap();
            let mut stream = connection.accept_uni().await.unwrap();
            let (mut buffer, mut received) = (vec![0; 256 << 10], 0);
            while let Some(read) = stream.read(&mut buffer).await.unwrap() {
                received += read as u64;
                if let Some(file) = &mut file {
                    file.write_all(&buffer[..read]).unwrap();
                }
            }
            if let Some(file) = file {
                file.sync_all().unwrap();
            }
            connection.close(0_u32.into(), b"");
            received
        });
        let connection = from.connect(target, b"bare").await.unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        let content = vec![7; 256 << 10];
        let began = Instant::now();
        for _ in 0..GIB / content.len() as u64 {
            stream.write_all(&content).await.unwrap();
        }
        stream.finish().unwrap();
        assert_eq!(receiving.await.unwrap(), GIB);
        1024.0 / began.elapsed().as_secs_f64()
    })
}

/// 1 GiB in 512 files, made while the daemons run: from the first revision that is known to the last byte in place,
/// against a bare stream.
fn throughput(dir: &Path) -> String {
    let devices = devices(dir, &["a", "b"], &|root| fs::write(root.join("first"), "1").unwrap());
    let staging = incompressible(dir);
    let before = on_loopback();
    let (captured, arrived) = send(&devices, &staging);
    let bytes = on_loopback() - before;
    let rate = 1024.0 / arrived.saturating_sub(captured).as_secs_f64();
    let peaks: Vec<String> = devices.iter().map(|device| format!("{:.0}", device.memory().1)).collect();
    drop(devices);
    let bare = bare_stream(None);
    let synced = bare_stream(Some(&dir.join("bare")));
    format!(
        "captured in {:.1} s, then {rate:.0} MiB/s until in place; a bare stream {bare:.0} MiB/s: {:.2} x, into a synced \
         file {synced:.0} MiB/s: {:.2} x; {:.1} MiB over the wire; peak memory {} MiB",
        captured.as_secs_f64(),
        rate / bare,
        rate / synced,
        mib(bytes),
        peaks.join(" and ")
    )
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Moves the files into the folder of the first device, and waits for them in that of the second: when they were
/// captured, and when they were there.
fn send(devices: &[Device], staging: &Path) -> (Duration, Duration) {
    let last = |device: &Device| device.status().and_then(|status| status.folders.values().next()?.head);
    let first = last(&devices[0]);
    let began = Instant::now();
    fs::rename(staging, devices[0].folder.join("staging")).unwrap();
    let mut captured = None;
    wait_for_files(&devices[1], began, &mut || {
        if captured.is_none() && last(&devices[0]) != first {
            captured = Some(began.elapsed());
        }
    });
    (captured.unwrap_or_default(), began.elapsed())
}

/// Waits until a device has all the files; looks at other things meanwhile.
fn wait_for_files(device: &Device, began: Instant, look: &mut dyn FnMut()) {
    let mut there = 0;
    while there < FILES {
        look();
        assert!(began.elapsed() < LIMIT, "it does not arrive");
        sleep(Duration::from_millis(10));
        while there < FILES && device.folder.join(format!("staging/{there}")).exists() {
            there += 1;
        }
    }
}

/// The same, with the sending or the receiving daemon killed in the middle: the bytes beyond those of a transfer that was
/// not cut.
fn cut(dir: &Path) -> String {
    let mut bytes = Vec::new();
    for killed in [None, Some(0), Some(1)] {
        let mut devices = devices(dir, &["a", "b"], &|root| fs::write(root.join("first"), "1").unwrap());
        let staging = incompressible(dir);
        let before = on_loopback();
        let began = Instant::now();
        fs::rename(&staging, devices[0].folder.join("staging")).unwrap();
        if let Some(killed) = killed {
            while on_loopback() - before < GIB / 2 {
                assert!(began.elapsed() < LIMIT, "it does not arrive");
                sleep(Duration::from_millis(2));
            }
            devices[killed].stop();
            devices[killed].start();
        }
        wait_for_files(&devices[1], began, &mut || ());
        devices[1].wait_in_step();
        bytes.push(mib(on_loopback() - before));
    }
    let [uncut, sender, receiver] = bytes[..] else { unreachable!("three runs") };
    format!("sender killed: {:.1} MiB; receiver killed: {:.1} MiB; of {uncut:.1} MiB", sender - uncut, receiver - uncut)
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let dir = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from).join("foldersync-live");
    println!("| what | foldersync |");
    println!("|---|---|");
    let benchmarks: [(&str, &dyn Fn() -> String); 6] = [
        ("edit, 20,000 files, two daemons: median / 99th of 200", &|| edits(&dir, &["a", "b"])),
        ("edit, three daemons, on both others: median / 99th of 200", &|| edits(&dir, &["a", "b", "c"])),
        ("idle, both daemons, 30 s, 20,000 files: processor time", &|| idle(&dir)),
        ("memory, 100,000 files: each daemon", &|| memory(&dir)),
        ("throughput, 1 GiB in 512 incompressible files", &|| throughput(&dir)),
        ("cut in the middle of 1 GiB: bytes sent again", &|| cut(&dir)),
    ];
    for (name, run) in benchmarks {
        if filter.as_ref().is_none_or(|filter| name.contains(filter.as_str())) {
            println!("| {name} | {} |", run());
        }
    }
    drop(fs::remove_dir_all(&dir));
}
