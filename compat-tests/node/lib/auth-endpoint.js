// A customer's backend: the channel and user endpoints that client libraries call before they subscribe or sign in.
import http from 'node:http';

/** 32 bytes, as the SDKs want them for encrypted channels. */
export const MASTER_KEY = Buffer.alloc(32, 7).toString('base64');

/**
 * Starts the endpoints on a free port. `sdk` is a server SDK with authorizeChannel and authenticateUser.
 *
 * Who asks is told by the params of the request: `user_id` and `name` (presence member or user), `watchlist`
 * (comma list), `no_channel_data`, `deny` (answers 403). Every request is kept in `requests`.
 */
export async function startAuthEndpoint(sdk) {
  const requests = [];
  const server = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const form = Object.fromEntries(new URLSearchParams(Buffer.concat(chunks).toString('utf8')));
    const path = request.url.split('?')[0];
    response.setHeader('access-control-allow-origin', '*');
    response.setHeader('access-control-allow-headers', 'content-type');
    if (request.method === 'OPTIONS') return response.writeHead(204).end();
    requests.push({ path, headers: request.headers, ...form });
    try {
      const [status, answer] = decide(sdk, path, form);
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(await answer));
    } catch (error) {
      response.writeHead(500).end(String(error));
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${server.address().port}`;
  return {
    requests,
    channelUrl: `${origin}/broadcasting/auth`,
    userUrl: `${origin}/broadcasting/user-auth`,
    stop() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

function decide(sdk, path, form) {
  if (form.deny) return [403, { message: 'denied' }];
  if (path.endsWith('/user-auth')) return [200, sdk.authenticateUser(form.socket_id, userOf(form))];
  if (!form.channel_name.startsWith('presence-') || form.no_channel_data) {
    return [200, sdk.authorizeChannel(form.socket_id, form.channel_name)];
  }
  const member = { user_id: form.user_id, user_info: { name: form.name ?? form.user_id } };
  return [200, sdk.authorizeChannel(form.socket_id, form.channel_name, member)];
}

function userOf(form) {
  const user = { id: form.user_id, user_info: { name: form.name ?? form.user_id } };
  return form.watchlist ? { ...user, watchlist: form.watchlist.split(',') } : user;
}
