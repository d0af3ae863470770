// The sandbox backend `creel`: one handle per agent run, onto the session's container.

import path from "node:path";
import { buildExecSpec, finalizeExec, prepareProcessCleanup, runShellCommand } from "./command.js";
import { isCode, CreelError } from "./errors.js";
import { FsBridge } from "./fs_bridge.js";
import { forgetAllBut, mirror } from "./mirror.js";
import { PathMap } from "./paths.js";
import { peerOfSession } from "./senders.js";

export const WORKDIR = "/workspace";
const RUNTIME_PREFIX = "creel-";
const SKILL_FOLDERS = ["skills", ".agents/skills"];
const MEDIA = "media/inbound";
// Where a sandbox that cannot write its workspace has what the gateway copies in.
const SCRATCH = "/tmp/openclaw";
const MATERIALIZED_SKILLS = ".openclaw/sandbox-skills/skills";

// What the gateway's three kinds of access are to the supervisor.
const ACCESS = {
  none: "WORKSPACE_ACCESS_NONE",
  ro: "WORKSPACE_ACCESS_READ_ONLY",
  rw: "WORKSPACE_ACCESS_READ_WRITE",
};

export function runtimeIdOf(session) {
  return `${RUNTIME_PREFIX}${session.sandbox_id}`;
}

export function sandboxIdOf(runtimeId) {
  return runtimeId.startsWith(RUNTIME_PREFIX) ? runtimeId.slice(RUNTIME_PREFIX.length) : undefined;
}

function refuseWhatCannotBe(params) {
  if ((params.cfg.docker?.binds?.length ?? 0) > 0) {
    throw new Error(
      "creel: sandbox.docker.binds are not taken over; name folders in sandbox.workspace_roots of creel.yaml and use workspaceAccess",
    );
  }
  if ((params.readOnlyResourceMounts?.length ?? 0) > 0) {
    throw new Error("creel: attachments of subagents are not carried into the sandbox yet");
  }
  if (!Object.hasOwn(ACCESS, params.cfg.workspaceAccess)) {
    throw new Error(`creel: workspaceAccess '${params.cfg.workspaceAccess}' is unknown`);
  }
}

// Which folders are copied in, which paths mean what, and what is not to be written.
function layout(params, workdir) {
  const at = (name) => path.posix.join(workdir, name);
  const host = (dir, name) => path.join(dir, ...name.split("/"));
  const workspace = path.resolve(params.workspaceDir);
  const skillFolders = SKILL_FOLDERS.map((name) => ({
    hostDir: host(workspace, name),
    containerDir: at(name),
    keep: true,
  }));
  switch (params.cfg.workspaceAccess) {
    case "none":
      return {
        trees: [
          {
            hostDir: workspace,
            containerDir: workdir,
            keep: false,
            except: skillFolders.map((each) => each.hostDir),
          },
          ...skillFolders,
        ],
        mappings: [{ hostRoot: workspace, containerRoot: workdir }],
        protectedRoots: skillFolders.map((each) => each.containerDir),
      };
    case "rw": {
      const skills = params.skillsWorkspaceDir && host(params.skillsWorkspaceDir, "skills");
      return {
        trees: skills ? [{ hostDir: skills, containerDir: at(MATERIALIZED_SKILLS), keep: true }] : [],
        mappings: [{ hostRoot: workspace, containerRoot: workdir }],
        protectedRoots: [...SKILL_FOLDERS, MATERIALIZED_SKILLS].map(at),
      };
    }
    default: {
      const inScratch = (name) => path.posix.join(SCRATCH, name);
      const names = [...SKILL_FOLDERS, MEDIA];
      return {
        trees: names.map((name) => ({
          hostDir: host(workspace, name),
          containerDir: inScratch(name),
          keep: true,
        })),
        mappings: [
          { hostRoot: path.resolve(params.agentWorkspaceDir), containerRoot: workdir },
          // By its own folder the gateway means the agent's, and what it has put into its own.
          { hostRoot: workspace, containerRoot: workdir },
        ],
        aliases: names.map((name) => ({ from: at(name), to: inScratch(name) })),
        protectedRoots: SKILL_FOLDERS.map(inScratch),
      };
    }
  }
}

// `callOf(session)`: the tool call of a session that was judged last, {sender, toolCallId}.
export function createFactory({ settings, client, callOf, ready, log }) {
  const warned = new Set();
  return async (params) => {
    refuseWhatCannotBe(params);
    const key = params.sessionKey;
    if (params.cfg.scope !== "session" && !warned.has(params.cfg.scope)) {
      warned.add(params.cfg.scope);
      log.warn(
        `creel: sandbox.scope '${params.cfg.scope}' of the gateway has no effect; which sessions share a sandbox is sandbox.scope in creel.yaml`,
      );
    }
    await ready();
    const context = () => {
      const { sender, toolCallId } = callOf(key);
      return { session: key, sender: sender ?? peerOfSession(key) ?? "", tool_call_id: toolCallId ?? "" };
    };
    const given = params.cfg.workspaceAccess === "rw" ? params.workspaceDir : params.agentWorkspaceDir;
    const { session } = await client.unary("OpenSession", {
      context: context(),
      workspace: params.cfg.workspaceAccess === "none" ? "" : path.resolve(given),
      workspace_access: ACCESS[params.cfg.workspaceAccess],
    });
    const { trees, ...places } = layout(params, session.workdir);
    const { skipped, denied } = await mirror({ client, context, sandboxId: session.sandbox_id, trees });
    if (denied) log.info(`creel: the gateway's files are not copied into '${key}': ${denied}`);
    if (skipped.length > 0) {
      log.warn(
        `creel: ${skipped.length} files of the gateway are too large for the sandbox and were left out, such as ${skipped[0]}`,
      );
    }
    return createHandle({ settings, client, context, session, places, params });
  };
}

function createHandle({ settings, client, context, session, places, params }) {
  const paths = new PathMap(session.workdir, places.mappings, places.aliases);
  const access = { client, context };
  return {
    id: "creel",
    runtimeId: runtimeIdOf(session),
    runtimeLabel: runtimeIdOf(session),
    workdir: session.workdir,
    env: params.cfg.docker?.env,
    configLabel: session.image,
    configLabelKind: "Image",
    workdirValidation: "backend",
    async validateWorkdir(workdir) {
      const target = paths.toContainer(workdir);
      if (target === session.workdir) return target;
      try {
        const { info } = await client.unary("Stat", {
          context: context(),
          args: { path: Buffer.from(target) },
        });
        return info.type === "FILE_TYPE_DIRECTORY" ? target : null;
      } catch (error) {
        // Who may run a command need not be allowed to look at files; the command will tell.
        if (isCode(error, "PERMISSION_DENIED")) return target;
        if (["NOT_FOUND", "FAILED_PRECONDITION"].some((name) => isCode(error, name))) return null;
        throw error;
      }
    },
    buildExecSpec: (request) =>
      buildExecSpec({ settings, context: context(), workdir: session.workdir }, request),
    finalizeExec,
    prepareProcessCleanup: (env) => prepareProcessCleanup(access, env),
    runShellCommand: (request) => runShellCommand(access, request),
    createFsBridge: () =>
      new FsBridge({
        client,
        context,
        paths,
        readOnly: params.cfg.workspaceAccess === "ro",
        protectedRoots: places.protectedRoots,
      }),
  };
}

// What `openclaw sandbox list | explain | recreate` ask.
export function createManager({ client }) {
  const find = async (runtimeId) => {
    const { sessions } = await client.unary("ListSessions", {});
    forgetAllBut(new Set(sessions.map((each) => each.sandbox_id)));
    return sessions.find((each) => each.sandbox_id === sandboxIdOf(runtimeId));
  };
  return {
    async describeRuntime({ entry }) {
      const session = await find(entry.containerName);
      if (!session) return { running: false, actualConfigLabel: entry.image, configLabelMatch: false };
      return {
        running: ["SESSION_STATE_RUNNING", "SESSION_STATE_OPENING", "SESSION_STATE_FROZEN"].includes(
          session.state,
        ),
        actualConfigLabel: session.image,
        configLabelMatch: session.image === entry.image,
      };
    },
    async removeRuntime({ entry }) {
      const session = await find(entry.containerName);
      if (!session) return;
      if (session.state === "SESSION_STATE_FROZEN") {
        throw new CreelError(
          `creel: the sandbox of this session is frozen (${session.reason}); only the operator may end it`,
        );
      }
      try {
        await client.unary("CloseSession", { context: { session: session.session } }, { timeoutMs: 60_000 });
      } catch (error) {
        if (!isCode(error, "NOT_FOUND")) throw error;
      }
    },
  };
}
