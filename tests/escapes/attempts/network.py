"""Attempts to reach a network, or another process by a socket. The test listens at the addresses that they try."""

NETWORK = {
    "tcp_to_the_host": "import socket; socket.create_connection(('127.0.0.1', W['tcp']), 1).send(b'x'); escaped()",
    "tcp_by_name": "import socket; socket.create_connection(('localhost', W['tcp']), 1).send(b'x'); escaped()",
    "tcp_over_ipv6": "import socket; socket.create_connection(('::1', W['tcp']), 1).send(b'x'); escaped()",
    "tcp_to_the_world": "import socket; socket.create_connection(('1.1.1.1', 53), 1); escaped()",
    "udp_to_the_host": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', W['udp'])); escaped()",
    "abstract_socket": "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\0' + W['abstract']); s.send(b'x'); escaped()",
    "socket_file": "import socket; s = socket.socket(socket.AF_UNIX); s.connect(W['socket_file']); s.send(b'x'); escaped()",
    "abstract_from_a_pair": "import socket; a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.sendto(b'x', '\\0' + W['abstract_udp']); escaped()",
    "abstract_by_message": "import socket; a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); "
    "a.sendmsg([b'x'], [], 0, '\\0' + W['abstract_udp']); escaped()",
    "listens": "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); escaped()",
    "listens_on_a_pair": "import socket; a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.bind('\\0mine'); escaped()",
    "raw_packets": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW); escaped()",
    "raw_ip": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); escaped()",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); escaped()",
    "vsock": "import socket; socket.socket(40, socket.SOCK_STREAM).connect((2, 1024)); escaped()",
    "kernel_crypto": "import socket; socket.socket(38, socket.SOCK_SEQPACKET); escaped()",
    "bluetooth": "import socket; socket.socket(31, socket.SOCK_RAW, 1); escaped()",
    "names": "import socket; socket.gethostbyname('example.org'); escaped()",
    "web": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:%d/' % W['tcp'], timeout=1).read(); escaped()",
    "by_number": "import ctypes; ctypes.CDLL(None).syscall(41, 2, 1, 0) >= 0 and escaped()",
    "interfaces": "import socket; len(socket.if_nameindex()) > 1 and escaped()",
    "host_name": "import os; os.uname().nodename == W['host'] and escaped()",
}
