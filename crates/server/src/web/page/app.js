// Comfort for pages that work without it.

// Empty fields say nothing, so they need not be in the address.
for (const form of document.querySelectorAll('form.filters')) {
  form.addEventListener('formdata', ({ formData }) => {
    for (const [name, value] of [...formData]) if (value === '') formData.delete(name);
  });
}

// The time at the reader's place.
const local = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
for (const time of document.querySelectorAll('time[datetime]')) {
  const date = new Date(time.dateTime);
  if (!Number.isNaN(date.getTime())) time.title = `${local.format(date)} here`;
}
