//! Servers on the host that a guest with a network can reach: files over ssh and over NFS.
//!
//! Each listens on the host's loopback alone, where QEMU's network takes what the guest
//! sends to 10.0.2.2, and ends with the story.

use std::{
    fs::{self, File, Permissions},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    host::{have_program, host},
};

/// How long a server may take to listen.
const LISTENS: Duration = Duration::from_secs(60);

/// A server process. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// An ssh server for whoever has the key in `directory/key`; it lets them in as the
    /// one who runs this.
    pub fn ssh(directory: &Path) -> Result<Self> {
        let sshd = "/usr/sbin/sshd";
        if !Path::new(sshd).is_file() || !have_program("ssh-keygen") {
            return Err(Error::Missing("there is no ssh server".to_owned()));
        }
        for name in ["key", "hostkey"] {
            let file = directory.join(name);
            let mut generate = Command::new("ssh-keygen");
            generate.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            host(generate.arg(&file), &[0])?;
        }
        // What sshd insists on, whether or not a service manager ever started it.
        let _ = fs::create_dir_all("/run/sshd");
        let port = free_port()?;
        let shown = directory.display();
        write(
            &directory.join("sshd_config"),
            &format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/hostkey\nPidFile none\n\
                 AuthorizedKeysFile {shown}/key.pub\nStrictModes no\nUsePAM no\n\
                 PasswordAuthentication no\nPermitRootLogin prohibit-password\n\
                 Subsystem sftp internal-sftp\n"
            ),
        )?;
        let mut command = Command::new(sshd);
        command
            .args(["-D", "-e", "-f"])
            .arg(directory.join("sshd_config"));
        Self::start(command, directory, "sshd", port)
    }

    /// An NFS server (version 4) with `exported` under the name `/rescue`.
    pub fn nfs(directory: &Path, exported: &Path) -> Result<Self> {
        if !have_program("ganesha.nfsd") {
            return Err(Error::Missing("there is no ganesha.nfsd".to_owned()));
        }
        fs::set_permissions(exported, Permissions::from_mode(0o777))
            .map_err(Error::host("cannot open up", exported))?;
        let port = free_port()?;
        let configuration = directory.join("ganesha.conf");
        write(
            &configuration,
            &format!(
                "NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {port}; MNT_Port = 0; \
                 Enable_NLM = false; Enable_RQUOTA = false; Bind_addr = 127.0.0.1; }}\n\
                 NFSv4 {{ Graceless = true; RecoveryRoot = \"{recovery}\"; \
                 RecoveryBackend = fs; Minor_Versions = 1, 2; }}\n\
                 EXPORT {{ Export_Id = 1; Path = \"{exported}\"; Pseudo = /rescue; Protocols = 4; \
                 Transports = TCP; Access_Type = RW; Squash = No_Root_Squash; SecType = sys; \
                 FSAL {{ Name = VFS; }} }}\n",
                exported = exported.display(),
                recovery = directory.join("recovery").display(),
            ),
        )?;
        fs::create_dir_all(directory.join("recovery/v4old"))
            .and_then(|()| fs::create_dir_all(directory.join("recovery/v4recov")))
            .map_err(Error::host("cannot make", directory.join("recovery")))?;
        let mut command = Command::new("ganesha.nfsd");
        command.args(["-F", "-N", "EVENT", "-L", "STDOUT"]);
        command.arg("-f").arg(&configuration);
        command.arg("-p").arg(directory.join("ganesha.pid"));
        Self::start(command, directory, "ganesha", port)
    }

    fn start(mut command: Command, directory: &Path, name: &str, port: u16) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).map_err(Error::host("cannot write", &log))?;
        let errors = output
            .try_clone()
            .map_err(Error::host("cannot write", &log))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(Error::host("cannot run", name))?;
        let mut server = Self { child, port };
        let until = Instant::now() + LISTENS;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.child.try_wait().is_ok_and(|ended| ended.is_some());
            if ended || Instant::now() >= until {
                return Err(Error::Ended {
                    wanted: format!("{name} to listen"),
                    last: fs::read_to_string(&log).unwrap_or_default(),
                });
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::host("cannot write", path))
}

/// A port that nobody listens on at the moment.
fn free_port() -> Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Error::host("cannot find", "a free port"))
}
