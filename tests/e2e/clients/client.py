import sys

import grpc
from creel.gateway.v1 import gateway_pb2 as pb
from creel.gateway.v1 import gateway_pb2_grpc
from creel.shim.v1 import files_pb2 as files
from creel.shim.v1 import process_pb2 as process

channel = grpc.insecure_channel("unix:" + sys.argv[1], options=[("grpc.default_authority", "creel")])
creel = gateway_pb2_grpc.GatewayStub(channel)
context = pb.CallContext(session="agent:main:irc:group:lobsters", sender="irc:mario")


def write(path, data):
    start = pb.WriteFileStart(context=context, args=files.WriteFileArgs(path=path.encode(), make_parents=True))
    return creel.WriteFile(iter([pb.WriteFileRequest(start=start), pb.WriteFileRequest(data=data)]))


def run(line, timeout=30):
    spec = process.CommandSpec(shell=line)
    spec.timeout.FromSeconds(timeout)
    start = pb.ExecStart(context=context, spec=spec)
    for answer in creel.Exec(iter([pb.ExecRequest(start=start)])):
        kind = answer.event.WhichOneof("event")
        if kind == "output":
            sys.stdout.buffer.write(answer.event.output.data)
        elif kind == "exit":
            return answer.event.exit


write("notes/hello.txt", b"hello from Python\n")
sys.exit(run("cat notes/hello.txt; exit 3").code)
