#!/usr/bin/env python3
"""What is added to a SystemRescue ISO, how, and where a medium may be written.

No SystemRescue is needed: an ISO with the same layout, made with the same xorriso arguments, stands in for it.
SystemRescue's own customizer is run on the recipe if ASL_SYSRESCUE_CUSTOMIZE names it.
"""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
PROGRAMS = ROOT / "dist/x86_64"
CUSTOMIZER = os.environ.get("ASL_SYSRESCUE_CUSTOMIZE")
LABEL = "RESCUE1200"

SYSLINUX_MENU = """\
UI boot/syslinux/vesamenu.c32
TIMEOUT 300

LABEL sysresccd
MENU LABEL Boot with defaults
LINUX boot/x86_64/vmlinuz
INITRD boot/intel_ucode.img,boot/amd_ucode.img,boot/x86_64/sysresccd.img
APPEND archisobasedir=sysresccd archisolabel=RESCUE1200 iomem=relaxed

LABEL sysresccd_copytoram
MENU LABEL Boot into memory
LINUX boot/x86_64/vmlinuz
INITRD boot/x86_64/sysresccd.img
APPEND archisobasedir=sysresccd archisolabel=RESCUE1200 iomem=relaxed copytoram

INCLUDE boot/syslinux/sysresccd_custom.cfg
"""

GRUB_MENU = """\
set timeout=30
set default=0
archiso_param="archisolabel=RESCUE1200"
eval "
menuentry 'Boot with defaults' {
\tset gfxpayload=keep
\tlinux /sysresccd/boot/x86_64/vmlinuz archisobasedir=sysresccd $archiso_param iomem=relaxed
\tinitrd /sysresccd/boot/intel_ucode.img /sysresccd/boot/amd_ucode.img /sysresccd/boot/x86_64/sysresccd.img
}
source /boot/grub/custom.cfg
"
"""


def run(*command, check=True, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def need(*programs):
    for program in programs:
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            raise unittest.SkipTest(f"there is no {program}")


def boot_records(iso):
    """What firmware looks at, without the places of files, which may move."""
    torito = run("xorriso", "-indev", iso, "-report_el_torito", "plain").stdout
    area = run("xorriso", "-indev", iso, "-report_system_area", "plain").stdout
    lines = [line for line in (torito + area).splitlines() if not re.search(r"LBA|blocks|Img|GUID|MBR partition|GPT (start|array|back|lba)|size", line)]
    paths = re.findall(r"El Torito img path.*", torito)
    kinds = re.findall(r"El Torito boot img.*?: +(\d) +(\w+) +(y|n)", torito)
    return lines, paths, kinds


def extract(iso, inside, directory):
    target = directory / inside.replace("/", "_")
    run("xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/" + inside, target)
    return target


def listing(squashfs):
    """Path -> (mode, owner) of everything in a squashfs."""
    found = {}
    for line in run("unsquashfs", "-lls", squashfs).stdout.splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("squashfs-root"):
            found[fields[5].split(" -> ")[0].removeprefix("squashfs-root") or "/"] = (fields[0], fields[1])
    return found


class OnAnIso(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        need("xorriso", "mksquashfs", "unsquashfs", "mformat")
        for program in ("asl", "asl-capture", "asl-promote"):
            if not (PROGRAMS / program).is_file():
                raise unittest.SkipTest(f"there is no {PROGRAMS / program}; scripts/build-static makes it")
        cls.isolinux = Path("/usr/lib/ISOLINUX")
        if not (cls.isolinux / "isohdpfx.bin").is_file():
            raise unittest.SkipTest("the package isolinux is not installed")
        cls.work = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.work)
        run(SCRIPTS / "build-overlay", "--no-build", "--out", cls.work / "overlay")
        cls.recipe = cls.work / "overlay/iso-overlay"
        cls.iso = cls.make_iso(cls.work)

    @classmethod
    def make_iso(cls, work):
        tree = work / "tree"
        for directory in ("isolinux", "EFI/boot", "EFI/archiso", "boot/grub", "sysresccd/x86_64", "sysresccd/boot/syslinux", "sysrescue.d", "autorun"):
            (tree / directory).mkdir(parents=True)
        for name in ("isolinux.bin", "isohdpfx.bin"):
            shutil.copy(cls.isolinux / name, tree / "isolinux" / name)
        (tree / "isolinux/isolinux.cfg").write_text("DEFAULT loadconfig\n")
        (tree / "sysresccd/boot/syslinux/sysresccd_sys.cfg").write_text(SYSLINUX_MENU)
        (tree / "sysresccd/boot/syslinux/sysresccd_custom.cfg").write_text("# yours\n")
        (tree / "boot/grub/grubsrcd.cfg").write_text(GRUB_MENU)
        (tree / "boot/grub/custom.cfg").write_text("# yours\n")
        (tree / "sysresccd/VERSION").write_text("12.00\n")
        (tree / "sysresccd/x86_64/airootfs.sfs").write_bytes(bytes(1 << 20))
        (tree / "sysrescue.d/100-defaults.yaml").write_text("---\nglobal:\n    loadsrm: false\n")
        (tree / "EFI/boot/bootx64.efi").write_bytes(b"MZ" + bytes(1000))
        run("mformat", "-C", "-i", tree / "EFI/archiso/efiboot.img", "-f", "1440", "::")
        iso = work / "in.iso"
        run(
            "xorriso", "-as", "mkisofs", "-iso-level", "3", "-full-iso9660-filenames", "-volid", LABEL,
            "-appid", "SystemRescue", "-publisher", "SystemRescue", "-preparer", "prepared by mkarchiso",
            "-eltorito-boot", "isolinux/isolinux.bin", "-eltorito-catalog", "isolinux/boot.cat",
            "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "-isohybrid-mbr", tree / "isolinux/isohdpfx.bin",
            "-eltorito-alt-boot", "-e", "EFI/archiso/efiboot.img", "-no-emul-boot", "-isohybrid-gpt-basdat",
            "-output", iso, tree,
        )  # fmt: skip
        return iso

    def check_customized(self, iso, module):
        self.assertIn(f"Volume Id    : {LABEL}", run("xorriso", "-indev", iso, "-pvd_info").stdout)
        self.assertEqual(boot_records(iso)[1:], boot_records(self.iso)[1:])
        with tempfile.TemporaryDirectory() as directory:
            directory = Path(directory)
            self.assertIn("loadsrm: true", extract(iso, "sysrescue.d/500-asl.yaml", directory).read_text())
            syslinux = extract(iso, "sysresccd/boot/syslinux/sysresccd_custom.cfg", directory).read_text()
            self.assertTrue(syslinux.startswith("# yours\n"))
            entry = syslinux[syslinux.index("LABEL asl") :]
            self.assertIn("\nMENU DEFAULT\n", entry)
            self.assertIn("\nAPPEND archisobasedir=sysresccd archisolabel=RESCUE1200 iomem=relaxed nomdlvm\n", entry)
            self.assertIn("\nINITRD boot/intel_ucode.img,boot/amd_ucode.img,boot/x86_64/sysresccd.img\n", entry)
            grub = extract(iso, "boot/grub/custom.cfg", directory).read_text()
            self.assertIn("linux /sysresccd/boot/x86_64/vmlinuz archisobasedir=sysresccd $archiso_param iomem=relaxed nomdlvm\n", grub)
            self.assertIn("\nset default=asl\n", grub)
            files = listing(extract(iso, module, directory))
        for path, (mode, owner) in files.items():
            self.assertEqual(owner, "root/root", path)
            if mode.startswith("d"):
                self.assertEqual(mode, "drwxr-xr-x", path)
        for path in (
            "/usr/local/bin/asl", "/usr/local/bin/asl-capture", "/usr/local/bin/asl-promote", "/usr/share/man/man1/asl.1",
            "/usr/share/man/man1/asl-promote.1", "/usr/share/bash-completion/completions/asl", "/etc/asl/greeting.conf",
            "/var/lib/asl", "/mnt/asl/local", "/mnt/asl/remote",
        ):  # fmt: skip
            self.assertIn(path, files)
        self.assertEqual([path for path in files if path.startswith("/.")], [])

    def test_the_overlay_is_the_same_every_time(self):
        run(SCRIPTS / "build-overlay", "--no-build", "--out", self.work / "again")

        def digests(directory):
            paths = sorted(path for path in directory.rglob("*") if path.is_file())
            return {str(path.relative_to(directory)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode, int(path.stat().st_mtime)) for path in paths if path.name != "asl.srm"}

        self.assertEqual(digests(self.work / "overlay"), digests(self.work / "again"))
        self.assertEqual((self.work / "overlay/asl.srm").read_bytes(), (self.work / "again/asl.srm").read_bytes())

    def test_the_overlay_replaces_nothing_but_an_overlay(self):
        """As `--out .` in the repository's root would."""
        mine = self.work / "mine/iso-overlay"
        mine.mkdir(parents=True)
        (mine / "precious").write_text("mine")
        done = run(SCRIPTS / "build-overlay", "--no-build", "--out", mine.parent, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("was not made by this script", done.stderr)
        self.assertEqual([path.name for path in mine.iterdir()], ["precious"])

    def test_systemrescues_own_customizer_takes_the_recipe(self):
        """Covers K2."""
        if not CUSTOMIZER:
            self.skipTest("ASL_SYSRESCUE_CUSTOMIZE does not name SystemRescue's sysrescue-customize")
        out = self.work / "customizer.iso"
        run("bash", CUSTOMIZER, "--auto", "-s", self.iso, "-d", out, "-r", self.recipe, "-w", self.work / "customizer")
        self.check_customized(out, "sysresccd/customize.srm")

    def test_customize_iso_puts_the_tools_in(self):
        """Covers K2."""
        out = self.work / "out.iso"
        overlay = self.work / "overlay"
        said = run(SCRIPTS / "customize-iso", self.iso, out, "--overlay", overlay).stdout
        self.assertIn(hashlib.sha256(out.read_bytes()).hexdigest(), said)
        self.check_customized(out, "sysresccd/asl.srm")
        # What was there is there still, and unchanged.
        with tempfile.TemporaryDirectory() as directory:
            airootfs = extract(out, "sysresccd/x86_64/airootfs.sfs", Path(directory))
            self.assertEqual(airootfs.read_bytes(), bytes(1 << 20))
        # A second time changes the module, and nothing twice.
        again = self.work / "twice.iso"
        run(SCRIPTS / "customize-iso", out, again, "--overlay", overlay)
        self.check_customized(again, "sysresccd/asl.srm")
        with tempfile.TemporaryDirectory() as directory:
            menu = extract(again, "sysresccd/boot/syslinux/sysresccd_custom.cfg", Path(directory)).read_text()
            self.assertEqual(menu.count("LABEL asl\n"), 1)

    def test_customize_iso_refuses_what_is_no_systemrescue(self):
        other = self.work / "other.iso"
        run("xorriso", "-as", "mkisofs", "-volid", "RESCUE_OTHER", "-output", other, self.recipe)
        for iso, words in ((other, "boot menus"), (ROOT / "README.md", "RESCUE"), (self.work / "none.iso", "no ISO")):
            done = run(SCRIPTS / "customize-iso", iso, self.work / "never.iso", "--overlay", self.work / "overlay", check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)
            self.assertFalse((self.work / "never.iso").exists())
            self.assertFalse((self.work / "never.iso.part").exists())


class WriteUsb(unittest.TestCase):
    """scripts/write-usb with a made-up machine: what /sys and /proc would say is in files."""

    def setUp(self):
        self.work = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.work)
        self.image = self.work / "image.iso"
        self.image.write_bytes(bytes(4096))
        self.block = self.work / "sys/class/block/sdq"
        for path, text in (
            ("removable", "1"), ("size", "2048"), ("dev", "8:0"), ("ro", "0"), ("device/model", "Stick"), ("device/serial", "S123"),
        ):  # fmt: skip
            self.put(self.block / path, text)
        self.put(self.work / "proc/self/mountinfo", "1 0 9:9 / / rw - ext4 /dev/other rw")
        self.put(self.work / "proc/swaps", "Filename")

    def put(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def refuses(self, words, *more, disk=None):
        target = self.work / (disk or "sdq")
        target.write_bytes(b"untouched")
        done = self.write(target, *more)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(words, done.stderr)
        self.assertEqual(target.read_bytes(), b"untouched")

    def write(self, target, *more):
        environment = {**os.environ, "ASL_WRITE_USB_SYS": str(self.work / "sys"), "ASL_WRITE_USB_PROC": str(self.work / "proc")}
        return run(SCRIPTS / "write-usb", self.image, target, *more, check=False, env=environment)

    def stick(self, backing):
        """A loop device under a name that a stick would have, and what /sys would say of it."""
        loop = run("losetup", "--find", "--show", backing).stdout.strip()
        self.addCleanup(run, "losetup", "--detach", loop)
        node = self.work / "sdq"
        number = os.stat(loop).st_rdev
        os.mknod(node, 0o600 | stat.S_IFBLK, number)
        self.put(self.block / "size", str(backing.stat().st_size // 512))
        self.put(self.block / "dev", f"{os.major(number)}:{os.minor(number)}")
        sequence = Path("/sys/class/block") / Path(loop).name / "diskseq"
        if sequence.exists():
            self.put(self.block / "diskseq", sequence.read_text().strip())
        return node

    def make_image(self, size):
        need("losetup", "xorriso")
        if os.geteuid() != 0:
            self.skipTest("needs root for a loop device")
        self.image.unlink()
        (self.work / "tree").mkdir()
        (self.work / "tree/file").write_bytes(os.urandom(size))
        run("xorriso", "-as", "mkisofs", "-volid", "RESCUETEST", "-output", self.image, self.work / "tree")

    def test_a_stick_is_written_and_read_back(self):
        """Covers K2. The stick is a loop device, under a name that a stick would have."""
        # A length that is no multiple of what is written at once.
        self.make_image(5_000_000)
        written = self.image.stat().st_size
        behind = os.urandom(3 << 20)
        stick = self.work / "stick.img"
        size = (written // 4096 + 1) * 4096 + len(behind)
        stick.write_bytes(bytes(size - len(behind)) + behind)
        node = self.stick(stick)
        done = self.write(node)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("Stick, serial S123", done.stdout)
        self.assertIn("done: start a machine from it", done.stdout)
        run("sync")
        found = stick.read_bytes()
        self.assertEqual(found[:written], self.image.read_bytes())
        self.assertEqual(found[-len(behind) :], behind)
        # Somebody mounted it meanwhile, which /proc has not told: the kernel refuses.
        holder = os.open(node, os.O_RDWR | os.O_EXCL)
        self.addCleanup(os.close, holder)
        before = stick.read_bytes()
        self.assertNotEqual(self.write(node).returncode, 0)
        run("sync")
        self.assertEqual(stick.read_bytes(), before)

    def test_another_disk_under_the_same_name_is_not_written(self):
        """The stick was pulled after it had been looked at, and something else got its name."""
        self.make_image(100_000)
        stick = self.work / "stick.img"
        stick.write_bytes(b"mine" * (1 << 18))
        node = self.stick(stick)
        true = {name: (self.block / name).read_text() for name in ("dev", "diskseq") if (self.block / name).exists()}
        for name, other in (("dev", "8:0"), ("diskseq", "999999999")):
            if name not in true:
                continue
            self.put(self.block / name, other)
            done = self.write(node)
            self.assertNotEqual(done.returncode, 0, name)
            self.assertIn("another disk now", done.stderr)
            self.put(self.block / name, true[name])
        run("sync")
        self.assertEqual(stick.read_bytes(), b"mine" * (1 << 18))

    def test_a_stick_that_was_written_in_part_does_not_start(self):
        self.make_image(12_000_000)
        full = self.work / "full"
        full.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", full)
        self.addCleanup(run, "umount", full)
        stick = full / "stick.img"
        with stick.open("wb") as file:
            # The label and the boot record of what was on it before.
            file.write(b"old" * (1 << 16))
            file.truncate(16 << 20)
        done = self.write(self.stick(stick))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("do not start from it", done.stderr)
        run("sync")
        with stick.open("rb") as file:
            self.assertEqual(file.read(64 << 10), bytes(64 << 10))

    def test_the_serial_number_is_found_wherever_it_is(self):
        (self.block / "device/serial").unlink()
        self.put(self.block / "removable", "0")
        self.refuses("--serial SERIAL")
        # A SCSI disk behind USB that was never asked for its world wide name: the file is there, reading it fails, as it
        # does for a directory. The hub's number is not the stick's.
        hub = self.work / "sys/devices/usb1/1-1"
        device = hub / "1-1.2/host0/0:0:0:0"
        (device / "wwid").mkdir(parents=True)
        self.put(device / "model", 'Dad\'s 5" Stick')
        shutil.rmtree(self.block / "device")
        (self.block / "device").symlink_to(device)
        self.put(hub / "serial", "HUB")
        self.put(hub / "idVendor", "1d6b")
        self.put(hub / "1-1.2/idVendor", "0951")
        self.refuses("--serial SERIAL")
        self.put(hub / "1-1.2/serial", "USB 7")
        self.refuses("--serial USB 7")
        self.assertIn('Dad\'s 5" Stick, serial USB 7', self.write(self.work / "sdq").stdout)
        (device / "vpd_pg80").write_bytes(b"\0\x80\0\x06UNIT9 ")
        self.refuses("--serial UNIT9")

    def test_a_disk_that_is_not_removable_needs_its_serial_number(self):
        self.put(self.block / "removable", "0")
        self.refuses("--serial S123")
        self.refuses("serial number S123, not S12", "--serial", "S12")

    def test_a_wrong_serial_number_is_refused_even_for_a_stick(self):
        self.refuses("not OTHER", "--serial", "OTHER")

    def test_a_disk_in_use_is_never_written(self):
        self.put(self.block / "sdq1/dev", "8:1")
        self.put(self.work / "proc/self/mountinfo", "1 0 8:1 / /mnt rw - ext4 /dev/sdq1 rw")
        self.refuses("sdq1 is mounted", "--serial", "S123")
        self.put(self.work / "proc/self/mountinfo", "1 0 8:2 / /mnt rw - ext4 /dev/sdr rw")
        self.put(self.work / "proc/swaps", "/dev/sdq1 partition 1 0 -2")
        self.refuses("swap", "--serial", "S123")
        self.put(self.work / "proc/swaps", "Filename")
        self.put(self.block / "sdq1/holders/dm-0", "")
        self.refuses("dm-0 lies on sdq1", "--serial", "S123")

    def test_what_is_no_whole_disk_is_refused(self):
        self.put(self.block / "partition", "1")
        self.refuses("is a partition")
        self.put(self.work / "sys/class/block/loop7/size", "2048")
        self.refuses("no disk that can be carried away", disk="loop7")
        self.refuses("knows no disk", disk="sdz")

    def test_too_small_and_write_protected(self):
        self.put(self.block / "size", "7")
        self.refuses("does not fit")
        self.put(self.block / "ro", "1")
        self.refuses("write-protected")


if __name__ == "__main__":
    unittest.main()
