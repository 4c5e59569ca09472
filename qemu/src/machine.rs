//! A virtual machine: what it is made of, and what can be done to it while it runs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    accel::{Accel, accel},
    console::Console,
    disk::{BlockStats, Bus, Disk},
    error::{Error, Result},
    host::have_program,
    medium::Medium,
    qmp::Qmp,
};

/// From power on to the prompt, firmware and boot menu included.
const BOOT: Duration = Duration::from_secs(240);
/// For QEMU to open its sockets.
const START: Duration = Duration::from_secs(30);
/// For the guest to let go of a device, or to switch itself off.
const LET_GO: Duration = Duration::from_secs(60);
/// PCIe ports that disks can be plugged into.
const PORTS: usize = 8;
/// Debian's OVMF package.
const OVMF: &str = "/usr/share/OVMF";

/// What starts the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// A PC BIOS.
    Bios,
    /// UEFI without Secure Boot.
    Uefi,
    /// UEFI that starts only what Microsoft's keys vouch for.
    UefiSecureBoot,
}

/// How the medium is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plug {
    /// In a SATA optical drive.
    Cd,
    /// As a USB stick with the image written to it.
    Usb,
    /// Written to a disk that is neither removable nor on USB.
    Disk,
}

/// A machine that is going to be started.
#[derive(Debug, Clone)]
pub struct Machine {
    story: String,
    medium: Medium,
    firmware: Firmware,
    plug: Plug,
    memory_mib: u32,
    disks: Vec<Disk>,
    network: bool,
    screen: bool,
}

/// A machine that runs. Dropping it switches it off at once.
#[derive(Debug)]
pub struct Running {
    /// The guest's serial console.
    pub console: Console,
    child: Child,
    qmp: Qmp,
    directory: PathBuf,
    prompt: &'static str,
    disks: Vec<Disk>,
    ports_used: usize,
    started: Instant,
}

/// Whatever happens in a story, no machine survives it.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    /// A machine with a BIOS and the medium in its optical drive. The story's name
    /// is that of its directory, see [`crate::scratch`].
    pub fn new(story: &str, medium: Medium) -> Self {
        Self {
            story: story.to_owned(),
            memory_mib: medium.memory_mib(),
            medium,
            firmware: Firmware::Bios,
            plug: Plug::Cd,
            disks: Vec::new(),
            network: false,
            screen: true,
        }
    }

    /// With this firmware.
    #[must_use]
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }

    /// With the medium plugged in this way.
    #[must_use]
    pub fn plug(mut self, plug: Plug) -> Self {
        self.plug = plug;
        self
    }

    /// With this much memory, in MiB, instead of the least that the medium needs.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// With one more disk.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// With a network card and QEMU's own network behind it: the host is 10.0.2.2.
    #[must_use]
    pub fn network(mut self) -> Self {
        self.network = true;
        self
    }

    /// Without a screen: what there is to see comes over the serial line.
    #[must_use]
    pub fn headless(mut self) -> Self {
        self.screen = false;
        self
    }

    fn firmware_arguments(&self, directory: &Path) -> Result<Vec<String>> {
        let (code, variables, machine) = match self.firmware {
            Firmware::Bios => return Ok(vec!["-machine".to_owned(), "q35".to_owned()]),
            Firmware::Uefi => ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", "q35"),
            Firmware::UefiSecureBoot => (
                "OVMF_CODE_4M.secboot.fd",
                "OVMF_VARS_4M.ms.fd",
                "q35,smm=on",
            ),
        };
        let code = Path::new(OVMF).join(code);
        let template = Path::new(OVMF).join(variables);
        if !code.is_file() || !template.is_file() {
            return Err(Error::Missing(
                "the package ovmf is not installed".to_owned(),
            ));
        }
        let variables = directory.join("variables.fd");
        fs::copy(&template, &variables).map_err(Error::host("cannot copy", &template))?;
        let mut arguments = vec![
            "-machine".to_owned(),
            machine.to_owned(),
            "-drive".to_owned(),
            format!("if=pflash,format=raw,readonly=on,file={}", code.display()),
            "-drive".to_owned(),
            format!("if=pflash,format=raw,file={}", variables.display()),
        ];
        if self.firmware == Firmware::UefiSecureBoot {
            // The variables are out of the guest's reach, as on a real board.
            arguments.extend([
                "-global".to_owned(),
                "driver=cfi.pflash01,property=secure,value=on".to_owned(),
            ]);
        }
        Ok(arguments)
    }

    /// Switches it on.
    pub fn start(self) -> Result<Running> {
        if !have_program("qemu-system-x86_64") {
            return Err(Error::Missing("there is no qemu-system-x86_64".to_owned()));
        }
        let directory = crate::host::story_directory(&self.story)?;
        let mut command = Command::new("qemu-system-x86_64");
        match accel() {
            Accel::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            // The oldest processor that distributions still run on, with what the tools look for at run time.
            Accel::Tcg => command.args(["-accel", "tcg", "-cpu", "max"]),
        };
        command.args(self.firmware_arguments(&directory)?);
        command.args([
            "-m",
            &self.memory_mib.to_string(),
            "-smp",
            "1",
            "-display",
            "none",
            "-vga",
            if self.screen { "std" } else { "none" },
            "-no-reboot",
        ]);
        command.args(["-nodefaults", "-no-user-config"]);
        let socket = |name: &str| directory.join(name);
        command.args([
            "-chardev",
            &format!(
                "socket,id=serial,path={},server=on,wait=off",
                socket("serial").display()
            ),
            "-serial",
            "chardev:serial",
            "-qmp",
            &format!("unix:{},server=on,wait=off", socket("qmp").display()),
        ]);
        command.args([
            "-device",
            "qemu-xhci,id=usb",
            "-device",
            "virtio-scsi-pci,id=scsi",
        ]);
        for port in 0..PORTS {
            command.args([
                "-device",
                &format!("pcie-root-port,id=port{port},chassis={port},slot={port}"),
            ]);
        }
        if self.network {
            command.args([
                "-netdev",
                "user,id=net",
                "-device",
                "virtio-net-pci,netdev=net,romfile=",
            ]);
        }
        command.args([
            "-blockdev",
            &json!({"driver": "file", "node-name": "medium", "filename": self.medium.path, "read-only": !self.medium.writable}).to_string(),
            "-device",
            match self.plug {
                Plug::Cd => "ide-cd,drive=medium,id=medium-drive,bus=ide.5,bootindex=0",
                Plug::Disk => "virtio-blk-pci,drive=medium,id=medium-drive,bootindex=0",
                Plug::Usb => "usb-storage,drive=medium,id=medium-drive,bus=usb.0,removable=on,bootindex=0",
            },
        ]);
        command.args(self.medium.direct(&directory)?);
        let mut ports_used = 0;
        let mut sata_used = 0;
        for disk in &self.disks {
            command.args(disk.backend(&directory)?);
            if let Some(bridge) = disk.bridge_device() {
                command.arg("-device").arg(bridge.to_string());
            }
            let port = match disk.bus {
                Bus::Sata => format!("ide.{sata_used}"),
                _ => format!("port{ports_used}"),
            };
            command
                .arg("-device")
                .arg(disk.device(disk.bus, &port).to_string());
            ports_used += usize::from(matches!(disk.bus, Bus::Virtio | Bus::Nvme));
            sata_used += usize::from(disk.bus == Bus::Sata);
        }
        let log = directory.join("qemu.log");
        let output = File::create(&log).map_err(Error::host("cannot write", &log))?;
        let errors = output
            .try_clone()
            .map_err(Error::host("cannot write", &log))?;
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(Error::host("cannot run", "qemu-system-x86_64"))?;
        let connected = connect(&mut child, &directory);
        let (console, qmp) = match connected {
            Ok(pair) => pair,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        Ok(Running {
            console,
            child,
            qmp,
            directory,
            prompt: self.medium.prompt(),
            disks: self.disks,
            ports_used,
            started,
        })
    }
}

/// Connects to both sockets as soon as QEMU has opened them.
fn connect(child: &mut Child, directory: &Path) -> Result<(Console, Qmp)> {
    let until = Instant::now() + START;
    loop {
        if let Ok(Some(_)) = child.try_wait() {
            return Err(Error::Ended {
                wanted: "QEMU's sockets".to_owned(),
                last: fs::read_to_string(directory.join("qemu.log")).unwrap_or_default(),
            });
        }
        let both = Console::connect(&directory.join("serial"), &directory.join("serial.log"))
            .and_then(|console| Ok((console, Qmp::connect(&directory.join("qmp"))?)));
        match both {
            Ok(both) => return Ok(both),
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

impl Running {
    /// Waits for the prompt, gives everything that was shown before it, and makes
    /// the shell one that [`Console::run`] can talk to.
    pub fn log_in(&mut self) -> Result<String> {
        let shown = self.console.expect(self.prompt, BOOT)?;
        self.console.expect("# ", LET_GO)?;
        self.console.quiet_shell()?;
        Ok(shown)
    }

    /// How long ago it was switched on.
    pub fn up(&self) -> Duration {
        self.started.elapsed()
    }

    /// How much processor time it has taken: on a busy host the fairer measure.
    pub fn processor_time(&self) -> Result<Duration> {
        let path = PathBuf::from(format!("/proc/{}/stat", self.child.id()));
        let stat = fs::read_to_string(&path).map_err(Error::host("cannot read", &path))?;
        // After the name in parentheses, fields 14 and 15 of proc(5), in ticks of 1/100 s.
        let ticks: u64 = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Where its logs and images are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What was read from a disk, and written to it, since it was plugged in.
    pub fn stats(&mut self, serial: &str) -> Result<BlockStats> {
        let answer = self.qmp.order("query-blockstats", json!({}))?;
        let device = format!("disk-{serial}");
        let fits = |one: &&serde_json::Value| {
            let qdev = one["qdev"].as_str().unwrap_or_default();
            qdev.split('/').any(|part| part == device) || one["node-name"] == serial
        };
        answer
            .as_array()
            .and_then(|all| all.iter().find(fits))
            .map(BlockStats::from_answer)
            .ok_or_else(|| Error::Refused {
                order: format!("query-blockstats of {serial}"),
                answer: answer.to_string(),
            })
    }

    /// Pulls a disk out, and waits until the guest has noticed.
    pub fn unplug(&mut self, serial: &str) -> Result<()> {
        let id = format!("disk-{serial}");
        self.qmp.order("device_del", json!({"id": id}))?;
        self.qmp.event("DEVICE_DELETED", LET_GO, |data| {
            data["device"] == id.as_str()
        })?;
        Ok(())
    }

    /// Plugs a disk in again, on the same bus or on another.
    pub fn plug(&mut self, serial: &str, bus: Bus) -> Result<()> {
        let Some(disk) = self.disks.iter().find(|disk| disk.serial == serial) else {
            return Err(Error::Missing(format!(
                "the machine was never given a disk {serial}"
            )));
        };
        let device = disk.device(bus, &format!("port{}", self.ports_used));
        if matches!(bus, Bus::Virtio | Bus::Nvme) {
            self.ports_used += 1;
        }
        self.qmp.order("device_add", device)?;
        Ok(())
    }

    /// The device that the guest has for a disk, as soon as it has one.
    pub fn device(&mut self, serial: &str) -> Result<String> {
        let find = format!("ls -d /dev/disk/by-id/*{serial}* | grep -v -e -part | head -n 1");
        let wait = "for i in $(seq 60); do d=$({}); [ -z \"$d\" ] || break; sleep 1; done 2>/dev/null; readlink -f $d";
        let found = self
            .console
            .run_within(&wait.replace("{}", &find), 2 * LET_GO)?
            .ok()?;
        Ok(found.trim().to_owned())
    }

    /// Mounts a disk where the greeting says, and makes a store there the one that is meant.
    pub fn mount(&mut self, serial: &str) -> Result<()> {
        let device = self.device(serial)?;
        self.console
            .run_within(&format!("mount {device} /mnt/asl/local"), LET_GO)?
            .ok()?;
        self.console
            .run("export ASL_STORE=/mnt/asl/local/rescue")?
            .ok()?;
        Ok(())
    }

    /// Types on the machine's own keyboard, which has letters of a US layout.
    pub fn type_keys(&mut self, keys: &str) -> Result<()> {
        for key in keys.chars() {
            let (name, shift) = match key {
                'a'..='z' | '0'..='9' => (key.to_string(), false),
                'A'..='Z' => (key.to_ascii_lowercase().to_string(), true),
                '\n' => ("ret".to_owned(), false),
                ' ' => ("spc".to_owned(), false),
                '-' => ("minus".to_owned(), false),
                '/' => ("slash".to_owned(), false),
                '.' => ("dot".to_owned(), false),
                _ => {
                    return Err(Error::Refused {
                        order: "send-key".to_owned(),
                        answer: format!("no key for {key:?}"),
                    });
                }
            };
            let mut pressed = vec![json!({"type": "qcode", "data": name})];
            if shift {
                pressed.insert(0, json!({"type": "qcode", "data": "shift"}));
            }
            self.qmp
                .order("send-key", json!({"keys": pressed, "hold-time": 20}))?;
            // The guest takes its time for each.
            thread::sleep(Duration::from_millis(60));
        }
        Ok(())
    }

    /// A picture of the screen, as a PNG file.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        self.qmp
            .order("screendump", json!({"filename": file, "format": "png"}))?;
        Ok(())
    }

    /// Cuts the power: what the guest has not got onto its disks is gone.
    pub fn cut_power(mut self) -> Result<()> {
        self.child
            .kill()
            .map_err(Error::host("cannot kill", "QEMU"))?;
        self.child
            .wait()
            .map_err(Error::host("cannot wait for", "QEMU"))?;
        Ok(())
    }

    /// Has the guest switch itself off, as a person would.
    pub fn power_off(mut self) -> Result<()> {
        self.console.line("poweroff")?;
        let until = Instant::now() + LET_GO;
        while Instant::now() < until {
            if self
                .child
                .try_wait()
                .map_err(Error::host("cannot wait for", "QEMU"))?
                .is_some()
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(Error::Timeout {
            wanted: "the machine to switch itself off".to_owned(),
            waited: LET_GO,
            last: self.console.last(),
        })
    }
}
