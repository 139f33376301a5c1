"""Two tun devices, and a cable between them; both go when one of them is deleted. Run by line.rs in the machine."""

import errno
import fcntl
import os
import select
import struct
import sys

# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000


def tun(name):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


near, far = (tun(name) for name in sys.argv[1:])
other = {near: far, far: near}
while True:
    for end in select.select([near, far], [], [])[0]:
        try:
            packet = os.read(end, 65536)
        except OSError:
            sys.exit("hung up")
        try:
            os.write(other[end], packet)
        except OSError as error:
            # What cannot be delivered is lost, as on any wire.
            if error.errno != errno.EIO:
                sys.exit("hung up")
