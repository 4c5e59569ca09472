//! `asl`: the store and what is in it.

use std::process::ExitCode;

use asl_cli::args::{
    Asl, AslCommand, DomainCommand, DraftCommand, HostCommand, StoreCommand, TrustCommand,
    WitnessCommand,
};
use asl_cli::command::{
    captures, completions, disks, domain, domain_draft, domain_draft_make, domain_export,
    domain_host, domain_hosts, domain_mint, domain_policy, domain_recover, domain_revoke,
    domain_rotate, domain_verify, domain_witness, export, get, guide, ls, man, put, rm, stat,
    store_diff, store_info, store_init, store_log, store_repair, store_snapshot, store_sync,
    store_verify, trust,
};
use asl_cli::start::start;

/// musl's allocator takes one lock for all threads and gives large buffers back to the
/// kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    start(
        |asl: &Asl| &asl.global,
        |face, asl| match asl.command {
            None => guide::run(face),
            Some(AslCommand::Store(command)) => match command {
                StoreCommand::Init(args) => store_init::run(face, &args),
                StoreCommand::Info => store_info::info(face),
                StoreCommand::State => store_info::state(face),
                StoreCommand::Verify(args) => store_verify::run(face, &args),
                StoreCommand::Repair(args) => store_repair::run(face, &args),
                StoreCommand::Snapshot(args) => store_snapshot::create(face, &args),
                StoreCommand::Snapshots => store_snapshot::list(face),
                StoreCommand::Log(args) => store_log::run(face, &args),
                StoreCommand::Sync(args) => store_sync::run(face, &args),
                StoreCommand::Diff(args) => store_diff::run(face, &args),
            },
            Some(AslCommand::Put(args)) => put::run(face, &args),
            Some(AslCommand::Get(args)) => get::run(face, &args),
            Some(AslCommand::Ls(args)) => ls::run(face, &args),
            Some(AslCommand::Stat(args)) => stat::run(face, &args),
            Some(AslCommand::Rm(args)) => rm::run(face, &args),
            Some(AslCommand::Captures(_)) => captures::list(face),
            Some(AslCommand::Show(args)) => captures::show(face, &args),
            Some(AslCommand::Export(args)) => export::run(face, &args),
            Some(AslCommand::Domain(command)) => match command {
                DomainCommand::Mint(args) => domain_mint::run(face, &args),
                DomainCommand::Show(args) => match &args.from {
                    Some(file) => domain_export::show(face, file, args.qr),
                    None => domain::show(face, &args),
                },
                DomainCommand::Verify(args) => domain_verify::run(face, &args),
                DomainCommand::Attest(args) => domain::attest(face, &args),
                DomainCommand::Rotate(args) => domain_rotate::run(face, &args),
                DomainCommand::Recover(args) => domain_recover::run(face, &args),
                DomainCommand::Revoke(args) => domain_revoke::run(face, &args),
                DomainCommand::Policy(args) => domain_policy::run(face, &args),
                DomainCommand::Export(args) => domain_export::run(face, &args),
                DomainCommand::Host(command) => match command {
                    HostCommand::Request(args) => domain_host::request(face, &args),
                    HostCommand::Add(args) => domain_host::add(face, &args),
                    HostCommand::List(_) => domain_hosts::list(face),
                    HostCommand::Remove(args) => domain_hosts::remove(face, &args),
                },
                DomainCommand::Draft(command) => match command {
                    DraftCommand::Member(args) => domain_draft_make::member(face, &args),
                    DraftCommand::Mint(args) => domain_draft_make::mint(face, &args),
                    DraftCommand::Update(args) => domain_draft_make::update(face, &args),
                    DraftCommand::Rotate(args) => domain_draft_make::rotate(face, &args),
                    DraftCommand::Show(args) => domain_draft::show(face, &args),
                    DraftCommand::Sign(args) => domain_draft::sign(face, &args),
                    DraftCommand::Merge(args) => domain_draft::merge(face, &args),
                    DraftCommand::Admit(args) => domain_draft::admit(face, &args),
                },
                DomainCommand::Witness(command) => match command {
                    WitnessCommand::Init(args) => domain_witness::init(face, &args),
                    WitnessCommand::Request(args) => domain_witness::request(face, &args),
                    WitnessCommand::Sign(args) => domain_witness::sign(face, &args),
                    WitnessCommand::Add(args) => domain_witness::add(face, &args),
                },
            },
            Some(AslCommand::Trust(command)) => match command {
                TrustCommand::Add(args) => trust::add(face, &args),
                TrustCommand::Remove(args) => trust::remove(face, &args),
                TrustCommand::List => trust::list(face),
            },
            Some(AslCommand::Disks(_)) => disks::run(face),
            Some(AslCommand::Completions(args)) => completions::run(face, &args),
            Some(AslCommand::Man(args)) => man::run(face, &args),
        },
    )
}
