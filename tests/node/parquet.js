'use strict';
// Reads a Parquet file with hyparquet and prints it as JSON: {"columns": ["name:repetition:type", …], "rowGroups": n, "codecs": […], "rows": [{…}, …]}.
// Times become ISO 8601, 64-bit integers text, bytes base64.
//
//   node parquet.js FILE

async function main() {
  const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } = await import('hyparquet');
  const file = await asyncBufferFromFile(process.argv[2]);
  const metadata = await parquetMetadataAsync(file);
  const rows = await parquetReadObjects({ file, metadata, utf8: false });
  const plain = (_, value) => {
    if (typeof value === 'bigint') return value.toString();
    if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
    return value;
  };
  const columns = metadata.schema.slice(1).map((element) => `${element.name}:${element.repetition_type}:${element.type}`);
  const codecs = new Set(metadata.row_groups.flatMap((group) => group.columns.map((column) => column.meta_data.codec)));
  const told = { columns, rowGroups: metadata.row_groups.length, codecs: [...codecs], rows };
  process.stdout.write(`${JSON.stringify(told, plain)}\n`);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
