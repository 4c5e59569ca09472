//! Rescues onto other machines: the guest's network leads to servers on the host.
//!
//! Each test boots a machine: `scripts/test --qemu` runs them.

use std::{fs, path::Path, process::Command, time::Duration};

use asl_qemu::{
    Bus, Console, Machine, Medium, Patient, Result, Server, export_and_compare, extract, host,
    story,
};

const LONG: Duration = Duration::from_secs(900);
const AT: &str = "/mnt/asl/remote";

/// Captures over the network and compares what lies on the server.
fn rescue(
    name: &str,
    serve: impl Fn(&Path, &Path) -> Result<Server>,
    mount: impl Fn(&mut Console, &Path, &Server) -> Result<()>,
    survival: &str,
) {
    story(name, |directory| {
        let patient = Patient::new(directory, 21, 48, 20)?;
        let served = directory.join("served");
        fs::create_dir(&served).expect("the story's directory can be written");
        let server = serve(directory, &served)?;
        let mut machine = Machine::new(name, Medium::of_the_day()?)
            .network()
            .disk(patient.disk(Bus::Scsi))
            .start()?;
        machine.log_in()?;
        let dying = machine.device(Patient::SERIAL)?;
        let console = &mut machine.console;
        console
            .run_within(
                "for i in $(seq 60); do ip route | grep -q default && break; sleep 1; done; ip route | grep default",
                LONG,
            )?
            .ok()?;
        mount(console, &served, &server)?;
        console
            .run(&format!("export ASL_STORE={AT}/rescue"))?
            .ok()?;
        let made = console
            .run_within("asl store init $ASL_STORE", LONG)?
            .ok()?;
        assert!(made.contains(survival), "{made}");
        let capture = format!("asl-capture disk {dying} --label patient --quiet");
        console.run_within(&capture, LONG)?.status(3)?;
        console.run_within("asl store verify", LONG)?.ok()?;
        console.run_within(&format!("umount {AT}"), LONG)?.ok()?;
        machine.power_off()?;
        let store = served.join("rescue");
        export_and_compare(directory, "--store", &store, &patient)?;
        extract(directory, &store, &patient)
    });
}

/// Covers K3, K4, K7.
#[test]
#[ignore = "boots a machine"]
fn onto_another_machine_over_ssh() {
    rescue(
        "network-ssh",
        |directory, _| Server::ssh(directory),
        |console, served, server| {
            let key = served.with_file_name("key");
            let key = host(Command::new("base64").args(["-w", "0"]).arg(key), &[0])?;
            let key = String::from_utf8_lossy(&key).into_owned();
            console
                .run(&format!(
                    "echo {key} | base64 -d >/root/key && chmod 600 /root/key"
                ))?
                .ok()?;
            let user = host(Command::new("id").arg("-un"), &[0])?;
            let user = String::from_utf8_lossy(&user).trim().to_owned();
            console
                .run_within(
                    &format!(
                        "sshfs -p {} -o IdentityFile=/root/key -o StrictHostKeyChecking=accept-new {user}@10.0.2.2:{} {AT}",
                        server.port,
                        served.display()
                    ),
                    LONG,
                )?
                .ok()?;
            Ok(())
        },
        "unknown: fuse.sshfs",
    );
}

/// Covers K3, K4, K7.
#[test]
#[ignore = "boots a machine"]
fn onto_another_machine_over_nfs() {
    rescue(
        "network-nfs",
        Server::nfs,
        |console, _, server| {
            let mount = format!(
                "mount -t nfs4 -o port={},sec=sys 10.0.2.2:/rescue {AT}",
                server.port
            );
            console.run_within(&mount, LONG)?.ok()?;
            Ok(())
        },
        "unknown: nfs4",
    );
}
