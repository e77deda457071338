// A stream of events as curl sees it: text that comes bit by bit.
const PATIENCE_MS = 10_000;

/** Opens a stream that ends with the test. Resolves to a function that waits for a text in it. */
export async function follow(t, url) {
  const end = new AbortController();
  t.after(() => end.abort());
  const late = setTimeout(() => end.abort(new Error(`nothing came of ${url} for ${PATIENCE_MS} ms`)), PATIENCE_MS);
  t.after(() => clearTimeout(late));
  const response = await fetch(url, { signal: end.signal });
  if (response.status !== 200) throw new Error(`${url}: ${response.status} ${await response.text()}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let seen = '';
  return async (text) => {
    while (!seen.includes(text)) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`the stream ended before ${text}: ${seen}`);
      seen += value;
    }
    return seen;
  };
}
