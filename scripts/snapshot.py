# SPDX-License-Identifier: GPL-2.0
"""Guests that need not boot: a guest is booted once, saved where it waits for what it
shall do, and each run goes on from there.

Under emulation a boot takes 4 s, with every checker 20 s; to go on takes a tenth of a
second. The memory of a saved guest is a file that each run maps privately, so that runs
side by side share what none of them has written. Memory that is the host's in any case,
as that of an NVDIMM, is not saved.

The kernel of a guest that goes on is told so by a VM generation ID that is another each
time, and mixes its random numbers anew.
"""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time

# A few hundred megabytes each: so many stay, those used last.
MOST = 16
# QEMU's answer to a command; it is emulating nothing meanwhile.
PATIENCE = 60


class Failed(Exception):
    """Why a guest could not be saved, or does not go on."""


class Monitor:
    """Starts a QEMU and speaks with it, and with the serial port on which its guest waits."""

    def __init__(self, args, **how):
        self.control, control = socket.socketpair()
        self.word, word = socket.socketpair()
        self.control.settimeout(PATIENCE)
        self.answers = self.control.makefile("r")
        self.qemu = subprocess.Popen(
            [*args, "-chardev", f"socket,id=monitor,fd={control.fileno()}", "-mon", "chardev=monitor,mode=control",
             "-chardev", f"socket,id=word,fd={word.fileno()}", "-serial", "chardev:word"],
            pass_fds=(control.fileno(), word.fileno()), **how)
        control.close()
        word.close()

    def ask(self, command, **arguments):
        """What QEMU returns for a command."""
        try:
            self.control.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
            for line in self.answers:
                answer = json.loads(line)
                if "error" in answer:
                    raise Failed(f"{command}: {answer['error']['desc']}")
                if "return" in answer:
                    return answer["return"]
        except OSError as error:
            raise Failed(f"{command}: {error}") from error
        raise Failed(f"{command}: QEMU ended")

    def migrate(self, command, **arguments):
        """Begins to save or to load: all but what memory of the host's own holds."""
        self.ask("qmp_capabilities")
        self.ask("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
        self.ask(command, **arguments)

    def until(self, command, wanted):
        """Asks until the status is the wanted one."""
        end = time.monotonic() + PATIENCE
        while (status := self.ask(command).get("status")) != wanted:
            if status == "failed" or time.monotonic() > end:
                raise Failed(f"{command}: {status}, not {wanted}")
            time.sleep(0.01)

    def save(self, path):
        self.migrate("stop")
        self.ask("migrate", uri=f"exec:cat >{path}")
        self.until("query-migrate", "completed")
        self.ask("quit")

    def go_on(self, path):
        """Loads what was saved, and lets the guest go on."""
        self.migrate("migrate-incoming", uri=f"exec:cat {path}")
        self.until("query-status", "paused")
        self.ask("cont")
        self.word.sendall(b"go\n")


def memory(path, size, share):
    """QEMU's arguments for a guest's memory of so many bytes; without a path, it is no file."""
    if not path:
        return []
    return ["-object", f"memory-backend-file,id=ram,size={size},mem-path={path},share={'on' if share else 'off'}",
            "-machine", "memory-backend=ram"]


class Snapshot:
    """A saved guest: ram, state, and console.log, which tells how it booted."""

    def __init__(self, cache, key):
        self.folder, self.path = os.path.join(cache, "snapshot"), os.path.join(cache, "snapshot", key)
        self.ram, self.state, self.console = (os.path.join(self.path, name) for name in ("ram", "state", "console.log"))

    def exists(self):
        if os.path.exists(self.state):
            os.utime(self.path)
            return True
        return False

    def make(self, fill):
        """Calls fill() with a folder for the three files, unless another process makes them meanwhile."""
        os.makedirs(self.folder, exist_ok=True)
        with open(self.path + ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.exists():
                return
            new = self.path + ".new"
            shutil.rmtree(new, ignore_errors=True)
            os.makedirs(new)
            try:
                fill(new)
                # Much of what a boot has touched is zero. A file system without holes only takes more room.
                subprocess.run(["fallocate", "--dig-holes", os.path.join(new, "ram")], stderr=subprocess.DEVNULL, check=False)
                os.rename(new, self.path)
            finally:
                shutil.rmtree(new, ignore_errors=True)
            self.forget_others()

    def forget_others(self):
        """Keeps those used last. What a guest has mapped stays until it ends."""
        saved = [os.path.join(self.folder, name) for name in os.listdir(self.folder) if "." not in name]
        for path in sorted(saved, key=os.path.getmtime, reverse=True)[MOST:]:
            shutil.rmtree(path, ignore_errors=True)
            if os.path.exists(path + ".lock"):
                os.remove(path + ".lock")

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)
